"""Witnesses of a crash: a workload with an open stream, and administrators who keep asking for certificates.

Owns: what they saw, so that a test can hold it against what the CA wrote down. Each runs in a thread of its own until
its block ends. A witness never asks again what was answered; it starts anew where a call failed.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from livery.wire import svid_api, workload_api
from tests.e2e.running import wait_until

_HEADER = (("workload.spiffe.io", "true"),)


@dataclass
class Stream:
    """A `FetchX509SVID` stream of this process, and every leaf that came over it."""

    leaves: list[x509.Certificate] = field(default_factory=list)
    ended: grpc.StatusCode | None = None

    @property
    def serials(self) -> list[int]:
        """The serial numbers, in the order they came."""
        return [leaf.serial_number for leaf in self.leaves]

    def wait_for_more(self, seconds: float) -> None:
        """Wait for one more SVID over the same stream."""
        seen = len(self.leaves)
        wait_until(lambda: len(self.leaves) > seen or self.ended is not None, seconds, "another SVID over the stream")
        assert self.ended is None, f"the stream ended with {self.ended}"


@contextmanager
def open_stream(address: str, spiffe_id: str) -> Iterator[Stream]:
    """A stream that is open for as long as the block lasts, or until the agent ends it."""
    seen = Stream()
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = workload_api.SpiffeWorkloadAPIStub(channel).FetchX509SVID(
            workload_api.X509SVIDRequest(), metadata=_HEADER
        )

        def read() -> None:
            try:
                for response in call:
                    seen.leaves.extend(
                        x509.load_der_x509_certificate(first_der(svid.x509_svid))
                        for svid in response.svids
                        if svid.spiffe_id == spiffe_id
                    )
            except grpc.RpcError as error:
                seen.ended = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        wait_until(lambda: bool(seen.leaves), 20, "the first SVID over the stream")
        yield seen
        if seen.ended is None:
            call.cancel()
            reader.join(timeout=10)
            seen.ended = None


def first_der(chain: bytes) -> bytes:
    """The first of concatenated DER certificates (X.690 8.1.3.5: long form, two length bytes)."""
    return chain[: 4 + int.from_bytes(chain[2:4], "big")]


@dataclass
class Minted:
    """Certificates that were really answered to an administrator."""

    certificates: list[x509.Certificate] = field(default_factory=list)
    failures: int = 0


@contextmanager
def keep_minting(socket: str, spiffe_id: str, threads: int = 3) -> Iterator[Minted]:
    """Mint on several connections without a pause, whatever happens to the CA."""
    minted, stop = Minted(), threading.Event()
    request = svid_api.MintX509SVIDRequest(csr=csr(spiffe_id), ttl=60)

    def mint() -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
        options += [("grpc.max_reconnect_backoff_ms", 200)]
        with grpc.insecure_channel(socket, options=options) as channel:
            stub = svid_api.SVIDStub(channel)
            while not stop.is_set():
                try:
                    answer = stub.MintX509SVID(request, timeout=10, wait_for_ready=True)
                except grpc.RpcError:
                    minted.failures += 1
                else:
                    minted.certificates.append(x509.load_der_x509_certificate(answer.svid.cert_chain[0]))

    workers = [threading.Thread(target=mint, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield minted
    finally:
        stop.set()
        for worker in workers:
            worker.join(timeout=15)


def csr(spiffe_id: str) -> bytes:
    """A certificate request for a new key."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=True)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the CA's journal."""

    index: int
    serial: str
    outcome: str | None
    tbs: bytes


def journal(state: Path) -> list[Line]:
    """Everything the CA wrote down before it signed, read from its database by sqlite itself."""
    (database,) = [path for path in state.rglob("*") if _is_database(path)]
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT idx, serial, outcome, tbs FROM intents ORDER BY idx").fetchall()
    return [Line(*row) for row in rows]


def _is_database(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"
