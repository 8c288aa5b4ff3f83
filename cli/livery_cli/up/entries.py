"""The registrations of `livery up`: who of its processes gets which identity, told to the CA over its socket.

Owns: making the CA's entries under our agent those that this run needs. An entry whose persona changed since the last
run (another UID, another interpreter) is replaced; entries under other parents are the user's and are left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from livery.identity import TrustBundle
from livery.runtime.spire_types import bundle_from_wire
from livery.wire import bundle_api, entry_api, types_api
from livery_cli.peers.client import Peer, ca_at, check_item, from_rpc, target
from livery_cli.peers.wire_text import id_to_wire, selectors_from_wire, selectors_to_wire

_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Registration:
    """One identity and who gets it."""

    spiffe_id: str
    parent_id: str
    selectors: tuple[str, ...]
    dns_names: tuple[str, ...] = ("localhost",)

    def wire(self) -> types_api.Entry:
        """The entry as the CA takes it."""
        return types_api.Entry(
            spiffe_id=id_to_wire(self.spiffe_id),
            parent_id=id_to_wire(self.parent_id),
            selectors=selectors_to_wire(self.selectors),
            dns_names=self.dns_names,
        )


class Registrar:
    """Talks to the CA's administration socket."""

    def __init__(self, socket: Path) -> None:
        self._peer = ca_at(f"unix:{socket}")

    async def bundle(self) -> TrustBundle:
        """The CA's own bundle; raises `LiveryError` where it does not answer."""
        async with self._channel() as channel:
            stub = bundle_api.BundleStub(channel)
            return bundle_from_wire(await stub.GetBundle(bundle_api.GetBundleRequest(), timeout=_TIMEOUT))

    async def register(self, wanted: Sequence[Registration]) -> None:
        """Make these the entries of their identities under their parents; raises `LiveryError` where it refuses."""
        async with self._channel() as channel:
            stub = entry_api.EntryStub(channel)
            for registration in wanted:
                await _register(stub, registration, self._peer)

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        async with grpc.aio.insecure_channel(target(self._peer.address)) as channel:
            try:
                yield channel
            except grpc.RpcError as error:
                raise from_rpc(error, self._peer) from error


async def _register(stub: entry_api.EntryAsyncStub, wanted: Registration, peer: Peer) -> None:
    criteria = entry_api.ListEntriesRequest.Filter(
        by_spiffe_id=id_to_wire(wanted.spiffe_id), by_parent_id=id_to_wire(wanted.parent_id)
    )
    found = await stub.ListEntries(entry_api.ListEntriesRequest(filter=criteria), timeout=_TIMEOUT)
    stale = [entry.id for entry in found.entries if selectors_from_wire(entry.selectors) != sorted(wanted.selectors)]
    if stale:
        await stub.BatchDeleteEntry(entry_api.BatchDeleteEntryRequest(ids=stale), timeout=_TIMEOUT)
    if len(stale) == len(found.entries):
        request = entry_api.BatchCreateEntryRequest(entries=[wanted.wire()])
        result = (await stub.BatchCreateEntry(request, timeout=_TIMEOUT)).results[0]
        check_item(result.status.code, result.status.message, peer)
