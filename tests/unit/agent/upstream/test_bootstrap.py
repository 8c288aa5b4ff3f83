"""The insecure bootstrap: what it looks at, and what it does not let pass even so."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from livery.identity import SpiffeId
from livery_agent.errors import CaAnswerUnusable, CaUnavailable
from livery_agent.upstream.bootstrap import TrustOnFirstUse, presented_authorities
from tests.fakes.tls import rogue_context
from tests.pki import TestCa

SERVER = SpiffeId.parse("spiffe://example.org/spire/server")


@asynccontextmanager
async def answering(context: ssl.SSLContext | None) -> AsyncIterator[str]:
    """Something that answers on a port of this machine."""

    async def hang_up(_reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def presenting(*chain: Any, key: Any) -> ssl.SSLContext:
    return rogue_context(chain, key, server=True, alpn=("h2",))


async def test_the_authorities_behind_the_leaf_are_taken():
    ca = TestCa(now=datetime.now(UTC))
    svid = ca.issue("/spire/server")
    async with answering(presenting(svid.leaf, ca.certificate, key=svid.private_key)) as address:
        bundle = await presented_authorities(address, SERVER, 5)
    assert [a.certificate for a in bundle.x509_authorities] == [ca.certificate]
    assert bundle.trust_domain == SERVER.trust_domain


async def test_one_who_claims_to_be_somebody_else_is_refused():
    ca = TestCa(now=datetime.now(UTC))
    svid = ca.issue("/orders")
    async with answering(presenting(svid.leaf, ca.certificate, key=svid.private_key)) as address:
        with pytest.raises(CaAnswerUnusable, match="claim"):
            await presented_authorities(address, SERVER, 5)


async def test_a_leaf_alone_gives_nothing_to_trust():
    svid = TestCa(now=datetime.now(UTC)).issue("/spire/server")
    async with answering(presenting(svid.leaf, key=svid.private_key)) as address:
        with pytest.raises(CaAnswerUnusable, match="no authority") as refused:
            await presented_authorities(address, SERVER, 5)
    assert "trust_bundle_path" in refused.value.fix


async def test_nobody_or_something_that_speaks_no_tls_is_unavailable():
    async with answering(None) as address:
        with pytest.raises(CaUnavailable):
            await presented_authorities(address, SERVER, 5)
    with pytest.raises(CaUnavailable):
        await presented_authorities(address, SERVER, 5)


async def test_the_dialer_that_trusts_on_first_use_dials_with_what_it_saw():
    ca, dialled = TestCa(), []

    class Dialer:
        last_refusal = "no"
        closed = False

        async def start(self) -> Any:
            return "channel"

        async def close(self) -> None:
            self.closed = True

    real = Dialer()

    async def look() -> Any:
        return ca.bundle()

    dialer = TrustOnFirstUse(look, lambda bundle: dialled.append(bundle) or real)  # type: ignore[func-returns-value]
    assert dialer.last_refusal is None
    await dialer.close()
    assert await dialer.start() == "channel"
    assert dialled == [ca.bundle()]
    assert dialer.last_refusal == "no"
    await dialer.close()
    assert real.closed
