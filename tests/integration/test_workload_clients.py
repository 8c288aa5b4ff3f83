"""Clients that somebody else wrote, unmodified: py-spiffe from PyPI, and OpenSSL on what it fetched."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import spiffe
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe.workloadapi.errors import FetchX509SvidError, ValidateJwtSvidError

from livery.identity import TrustDomain
from tests.integration.agents import Town, entry, town
from tests.pki import TestCa

T = TypeVar("T")


@pytest.fixture
async def here() -> AsyncIterator[Town]:
    async with town(entry("orders", created_at=1), entry("inventory", created_at=2)) as here:
        yield here


async def with_client(here: Town, use: Callable[[spiffe.WorkloadApiClient], T]) -> T:
    """Run synchronous client code in a thread of its own, as an application would."""

    def run() -> T:
        with spiffe.WorkloadApiClient(socket_path=here.endpoint) as client:
            return use(client)

    return await asyncio.to_thread(run)


async def test_py_spiffe_fetches_an_x509_context(here: Town):
    context = await with_client(here, lambda client: client.fetch_x509_context())
    assert str(context.default_svid.spiffe_id) == "spiffe://example.org/orders"
    assert [str(svid.spiffe_id) for svid in context.x509_svids] == [
        "spiffe://example.org/orders",
        "spiffe://example.org/inventory",
    ]
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(spiffe.TrustDomain("example.org"))
    ours = {a.der() for a in here.ca.bundle.x509_authorities}
    assert bundle is not None
    assert {a.public_bytes(Encoding.DER) for a in bundle.x509_authorities} == ours


async def test_py_spiffe_fetches_and_validates_jwt_svids(here: Town):
    svid = await with_client(here, lambda client: client.fetch_jwt_svid({"them"}))
    assert str(svid.spiffe_id) == "spiffe://example.org/orders"
    named = spiffe.SpiffeId("spiffe://example.org/inventory")
    svid = await with_client(here, lambda client: client.fetch_jwt_svid({"them"}, subject=named))
    assert svid.spiffe_id == named
    validated = await with_client(here, lambda client: client.validate_jwt_svid(svid.token, "them"))
    assert validated.spiffe_id == named
    with pytest.raises(ValidateJwtSvidError):
        await with_client(here, lambda client: client.validate_jwt_svid(svid.token, "somebody-else"))


async def test_py_spiffe_fetches_bundles(here: Town):
    partner = TestCa("partner.test", now=here.clock.now())
    here.ca.orders.federated["partner.test"] = partner.bundle()
    here.ca.revise("orders", federates_with=(TrustDomain("partner.test"),))
    await here.until(lambda account: len(account["bundles"]) == 2)
    x509 = await with_client(here, lambda client: client.fetch_x509_bundles())
    jwt = await with_client(here, lambda client: client.fetch_jwt_bundles())
    for name in ("example.org", "partner.test"):
        assert x509.get_bundle_for_trust_domain(spiffe.TrustDomain(name)) is not None
        assert jwt.get_bundle_for_trust_domain(spiffe.TrustDomain(name)) is not None
    key_id = here.ca.bundle.jwt_authorities[0].key_id
    own = jwt.get_bundle_for_trust_domain(spiffe.TrustDomain("example.org"))
    assert own is not None
    assert own.get_jwt_authority(key_id) is not None


async def test_a_partner_that_has_no_x509_authority_spoils_nothing_for_py_spiffe(here: Town):
    """It may do JWT-SVIDs alone, or have withdrawn everything; our workloads go on being rotated."""
    partner = TestCa("partner.test", now=here.clock.now())
    here.ca.orders.federated["partner.test"] = partner.bundle(x509_authorities=())
    here.ca.revise("orders", federates_with=(TrustDomain("partner.test"),))
    await here.until(lambda account: len(account["bundles"]) == 2)
    context: Any = await with_client(here, lambda client: client.fetch_x509_context())
    assert str(context.default_svid.spiffe_id) == "spiffe://example.org/orders"
    x509: Any = await with_client(here, lambda client: client.fetch_x509_bundles())
    jwt: Any = await with_client(here, lambda client: client.fetch_jwt_bundles())
    name = spiffe.TrustDomain("partner.test")
    assert (x509.get_bundle_for_trust_domain(name), jwt.get_bundle_for_trust_domain(name) is None) == (None, False)


async def test_a_py_spiffe_source_follows_rotations():
    async with town(entry("orders"), start=False) as here:
        here.ca.orders.svid_ttl = timedelta(seconds=3)
        await here.start_agent()
        await here.until(lambda account: account["identities"] and account["identities"][0]["serial"])
        serials = await asyncio.to_thread(_three_serials, here.endpoint)
        assert len(serials) == 3


def _three_serials(endpoint: str) -> set[int]:
    """The serials a source shows until it has shown three; it is told of each change by a callback."""
    changed = threading.Event()
    with spiffe.X509Source(socket_path=endpoint, timeout_in_seconds=10) as source:
        source.subscribe_for_updates(changed.set)
        serials = {source.get_x509_context().default_svid.leaf.serial_number}
        while len(serials) < 3:
            assert changed.wait(10), "no rotation reached the source"
            changed.clear()
            serials.add(source.get_x509_context().default_svid.leaf.serial_number)
    return serials


async def test_py_spiffe_is_told_that_it_has_no_identity():
    async with town() as here:
        with pytest.raises(FetchX509SvidError, match="no identity issued"):
            await with_client(here, lambda client: client.fetch_x509_svid())


async def test_openssl_accepts_a_fetched_chain(here: Town, tmp_path: Path):
    context: Any = await with_client(here, lambda client: client.fetch_x509_context())
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(spiffe.TrustDomain("example.org"))
    (tmp_path / "bundle.pem").write_bytes(b"".join(a.public_bytes(Encoding.PEM) for a in bundle.x509_authorities))
    (tmp_path / "chain.pem").write_bytes(
        b"".join(c.public_bytes(Encoding.PEM) for c in context.default_svid.cert_chain)
    )
    chain = tmp_path / "chain.pem"
    command = [
        "openssl",
        "verify",
        "-purpose",
        "sslclient",
        "-CAfile",
        tmp_path / "bundle.pem",
        "-untrusted",
        chain,
        chain,
    ]
    openssl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await openssl.communicate()
    assert (openssl.returncode, said.endswith(b"OK\n")) == (0, True), said
