"""A Workload API on a real unix socket, whose state a test sets and changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio

from livery.identity import TrustBundle, X509Svid
from livery.wire import workload_api


def x509_message(svids: list[X509Svid], bundle: TrustBundle, *federated: TrustBundle) -> workload_api.X509SVIDResponse:
    """The message that says: these are your identities, this is your bundle, these are the others'."""
    return workload_api.X509SVIDResponse(
        svids=[
            workload_api.X509SVID(
                spiffe_id=str(svid.id),
                x509_svid=svid.chain_der(),
                x509_svid_key=svid.key_der(),
                bundle=bundle.x509_der(),
                hint=svid.hint,
            )
            for svid in svids
        ],
        federated_bundles={f"spiffe://{other.trust_domain}": other.x509_der() for other in federated},
    )


class FakeWorkloadApi(workload_api.SpiffeWorkloadAPIServicer):
    """`say(message)` sends a message on every open stream and first on every new one; `refuse(code)` ends them all."""

    def __init__(self, path: Path) -> None:
        self.endpoint = f"unix://{path}"
        self._path = path
        self._server: grpc.aio.Server | None = None
        self._message: workload_api.X509SVIDResponse | None = None
        self._refusal: grpc.StatusCode | None = None
        self._version = 0
        self._changed = asyncio.Condition()
        self.streams_opened = 0
        self.jwt_answer: Any = None
        self.jwt_requests: list[workload_api.JWTSVIDRequest] = []
        self.jwt_bundles: dict[str, bytes] = {}
        self.metadata: list[Any] = []

    async def start(self) -> None:
        self._server = grpc.aio.server()
        workload_api.add_SpiffeWorkloadAPIServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self._path}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def say(self, message: workload_api.X509SVIDResponse) -> None:
        self._message, self._refusal = message, None
        await self._change()

    async def refuse(self, code: grpc.StatusCode) -> None:
        self._refusal = code
        await self._change()

    async def _change(self) -> None:
        self._version += 1
        async with self._changed:
            self._changed.notify_all()

    async def FetchX509SVID(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.streams_opened += 1
        self.metadata.append(dict(context.invocation_metadata()))
        seen = 0
        while True:
            seen = await self._after(seen)
            if self._refusal is not None:
                await context.abort(self._refusal, "no identity issued")
            if self._message is not None:
                yield self._message

    async def FetchJWTSVID(self, request: Any, context: Any) -> Any:
        self.jwt_requests.append(request)
        if isinstance(self.jwt_answer, grpc.StatusCode):
            await context.abort(self.jwt_answer, "refused")
        return self.jwt_answer

    async def FetchJWTBundles(self, request: Any, context: Any) -> AsyncIterator[Any]:
        seen = self._version
        while True:
            yield workload_api.JWTBundlesResponse(bundles=self.jwt_bundles)
            seen = await self._after(seen)

    async def _after(self, seen: int) -> int:
        async with self._changed:
            await self._changed.wait_for(lambda: self._version != seen)
        return self._version
