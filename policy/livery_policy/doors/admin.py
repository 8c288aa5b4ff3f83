"""The rest of the server's HTTP: health, metrics, administration, and a page that lists it all.

Owns: these routes. Does not own: decisions about calls (`authzen`), rights (`admission`).

Invariants: `/health` tells anybody one word; metrics are for who may ask; everything else is for administrators, on the
unix socket, and nothing changes state but `POST /admin/reload`. No page loads anything from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from livery.errors import Kind, LiveryError
from livery.runtime.audit import Audit
from livery.runtime.clock import Clock
from livery.runtime.http import peer_of
from livery.runtime.http.gate import Application, Receive, Scope, Send
from livery.runtime.metrics import CONTENT_TYPE, Metrics
from livery.runtime.problems import http_status
from livery_policy.bundles.keeper import PolicyKeeper
from livery_policy.decisions.point import DecisionPoint
from livery_policy.doors.admission import Admission
from livery_policy.errors import InvalidPolicies, PolicyError
from livery_policy.offline import Wish, told

_NO_STORE = {"cache-control": "no-store"}


@dataclass(frozen=True, slots=True)
class AdminParts:
    """What the administration works on."""

    point: DecisionPoint
    keeper: PolicyKeeper
    admission: Admission
    clock: Clock
    metrics: Metrics
    audit: Audit


class Asked(BaseModel):
    """`livery can`, asked of the running server."""

    model_config = ConfigDict(extra="forbid")

    principal: str = Field(max_length=4096, description="The caller's SPIFFE ID")
    action: str = Field(max_length=64, description="http:GET, grpc, connect, …")
    resource: str = Field(max_length=4096, description="The callee's SPIFFE ID")
    context: dict[str, Any] = Field(default_factory=dict, description="The call's context, as in AuthZEN")


def admin_app(parts: AdminParts) -> Application:
    """The application; each request must carry the peer that `livery.runtime.http` puts there."""
    app = _api()
    app.state.parts = parts
    return RightsFirst(app, parts)


def _api() -> FastAPI:
    app = FastAPI(title="livery policy", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/health", _health, summary="Whether decisions are made, in one word")
    app.add_api_route("/metrics", _metrics, summary="Prometheus metrics, for who may ask", response_class=Response)
    app.add_api_route("/docs", _docs, summary="This page", response_class=HTMLResponse)
    app.add_api_route("/openapi.json", _openapi, summary="This API as OpenAPI")
    app.add_api_route("/admin/version", _version, summary="The version of the policies in force")
    app.add_api_route("/admin/policies", _policies, summary="The policies and their status")
    app.add_api_route("/admin/reload", _reload, methods=["POST"], summary="Load the directory now")
    app.add_api_route("/admin/decisions/{decision_id}", _decision, summary="Why it was decided so")
    app.add_api_route("/admin/can", _can, methods=["POST"], summary="May this call be made")
    app.add_exception_handler(LiveryError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_form)
    return app


class RightsFirst:
    """Lets a request through only if its peer may make it: before its body is read or its path is looked up."""

    def __init__(self, app: Application, parts: AdminParts) -> None:
        self._app = app
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse."""
        if scope["type"] == "http":
            try:
                self._require_right(scope)
            except LiveryError as e:
                await _refusal(e)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _require_right(self, scope: Scope) -> None:
        path, admission = scope["path"], self._parts.admission
        if path == "/health":
            return
        peer = peer_of(scope)
        try:
            admission.administrator(peer)
        except PolicyError:
            if path != "/metrics":
                raise
            admission.asker(peer, self._parts.clock.now())


def _parts(request: Request) -> AdminParts:
    found = request.app.state.parts
    assert isinstance(found, AdminParts)
    return found


async def _health(request: Request) -> JSONResponse:
    status = _parts(request).keeper.status
    word = "unavailable" if status.version is None else "degraded" if status.error else "ok"
    return JSONResponse({"status": word}, 503 if status.version is None else 200, _NO_STORE)


async def _metrics(request: Request) -> Response:
    return Response(_parts(request).metrics.render(), media_type=CONTENT_TYPE)


async def _version(request: Request) -> JSONResponse:
    version = _parts(request).point.version
    return JSONResponse(version.as_dict() if version else None, headers=_NO_STORE)


async def _policies(request: Request) -> JSONResponse:
    parts = _parts(request)
    engine = parts.point.engine
    held = engine.compiled.policies if engine is not None else ()
    listed = [{"id": p.id, "effect": p.effect, "where": p.where, "text": p.text} for p in held]
    return JSONResponse({**parts.keeper.status.as_dict(), "in_force": listed}, headers=_NO_STORE)


async def _reload(request: Request) -> JSONResponse:
    parts = _parts(request)
    parts.audit.record("policies.reload", "requested", caller=peer_of(request.scope).describe())
    return JSONResponse((await parts.keeper.load()).as_dict(), headers=_NO_STORE)


async def _decision(request: Request, decision_id: str) -> JSONResponse:
    return JSONResponse(told(_parts(request).point.explain(decision_id)), headers=_NO_STORE)


async def _can(request: Request, asked: Annotated[Asked, Body()]) -> JSONResponse:
    point = _parts(request).point
    call, assumed = Wish(asked.principal, asked.action, asked.resource, asked.context).call()
    decision = point.decide(call, peer_of(request.scope).describe())
    return JSONResponse(told(point.explain(decision.id), assumed), headers=_NO_STORE)


async def _openapi(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())


async def _docs(request: Request) -> HTMLResponse:
    paths: dict[str, dict[str, dict[str, str]]] = request.app.openapi()["paths"]
    rows = "".join(
        f"<tr><td>{method.upper()}</td><td><code>{escape(path)}</code></td><td>{escape(about['summary'])}</td></tr>"
        for path, methods in paths.items()
        for method, about in methods.items()
    )
    title = "<!doctype html><html lang=en><meta charset=utf-8><title>livery policy</title><h1>livery policy</h1>"
    decisions = "<p>Decisions: AuthZEN, <code>/.well-known/authzen-configuration</code> says where.</p>"
    headers = {"content-security-policy": "default-src 'none'"}
    return HTMLResponse(f"{title}{decisions}<table>{rows}</table></html>", headers=headers)


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LiveryError)
    return _refusal(error)


def _refusal(error: LiveryError) -> JSONResponse:
    body: dict[str, object] = {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}
    if isinstance(error, InvalidPolicies):
        body["findings"] = [finding.as_dict() for finding in error.findings]
    headers = {"www-authenticate": "X509-SVID"} if error.kind is Kind.UNAUTHENTICATED else {}
    return JSONResponse(body, http_status(error.kind), headers | _NO_STORE)


async def _refuse_form(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    places = [".".join(str(part) for part in e["loc"][1:]) + f": {e['msg']}" for e in error.errors()]
    body = {"code": "bad_request", "what": "the request is not understood", "why": "; ".join(places)[:500], "fix": ""}
    return JSONResponse(body, http_status(Kind.INVALID), _NO_STORE)
