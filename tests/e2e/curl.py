"""curl as a client that owes us nothing: HTTP and, by HTTP/2, gRPC; over TCP, TLS and unix sockets; as any user.

Owns: building the command line and reading what came back. A gRPC status stands in a header or a trailer, and curl
prints both.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

_STATUS = re.compile(r"^HTTP/[\d.]+ (\d{3})", re.MULTILINE)
_GRPC_STATUS = re.compile(r"^grpc-status: (\d+)", re.MULTILINE | re.IGNORECASE)
_END = "=== end of transfer: "  # written by curl after each, with its exit code and the size of the body


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to. `status` and `grpc_status` are None where none came."""

    exit_code: int
    status: int | None
    grpc_status: int | None
    told: str
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The value of a header or trailer."""
        found = re.search(rf"^{re.escape(name)}:\s*(.*?)\s*$", self.told, re.MULTILINE | re.IGNORECASE)
        return found[1] if found else None


def curl(*arguments: str, data: bytes | None = None, uid: int | None = None, timeout: float = 10) -> Answer:
    """One request. `data` is sent as the body, `uid` is who curl runs as (as root only)."""
    (answer,) = _run(list(arguments), data, uid, timeout)
    return answer


def curl_each(
    urls: Sequence[str], *arguments: str, data: bytes | None = None, uid: int | None = None, timeout: float = 2
) -> list[Answer]:
    """The same request to one address after another, over one connection where the server keeps it."""
    answers = _run([*arguments, *urls], data, uid, timeout, len(urls))
    assert len(answers) == len(urls), (len(answers), urls)
    return answers


def grpc_each(
    methods: Sequence[str], *door: str, message: bytes = b"", headers: Sequence[str] = (), uid: int | None = None
) -> list[Answer]:
    """One unary call of each method. `door` reaches the server: options of curl, and last a URL without a path."""
    options, url = door[:-1], door[-1]
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    spoken = ["--header", "content-type: application/grpc", "--header", "te: trailers"]
    for header in headers:
        spoken += ["--header", header]
    version = "--http2" if url.startswith("https:") else "--http2-prior-knowledge"
    return curl_each([url + method for method in methods], version, *spoken, *options, data=framed, uid=uid)


def _run(arguments: list[str], data: bytes | None, uid: int | None, timeout: float, count: int = 1) -> list[Answer]:
    # Another user by a program of its own: Popen's `user` takes a fork(), and that is no safe thing where grpc runs.
    who = [] if uid is None else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    command = [*who, "curl", "--silent", "--show-error", "--globoff", "--max-time", str(timeout)]
    command += ["--dump-header", "/dev/stderr", "--write-out", f"%{{stderr}}\n{_END}%{{exitcode}} %{{size_download}}\n"]
    if data is not None:
        command += ["--data-binary", "@-"]
    reader, writer = os.pipe()
    if uid is not None:
        os.fchown(writer, uid, -1)  # curl opens it once more, by name
    with ThreadPoolExecutor(1) as pool, os.fdopen(reader, "rb") as pipe:
        told = pool.submit(pipe.read)
        try:
            done = subprocess.run(
                [*command, *arguments],
                input=data or b"",
                stdout=subprocess.PIPE,
                stderr=writer,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                timeout=timeout * count + 20,
                check=False,
            )
        finally:
            os.close(writer)
        return _answers(told.result().decode("utf-8", "replace"), done.stdout)


def _answers(told: str, bodies: bytes) -> list[Answer]:
    answers, begun = [], 0
    # Text, end, text, end ...: what is told of a transfer stands before its end.
    pieces = re.split(rf"\n{re.escape(_END)}(\d+) (\d+)\n", told)
    for text, code, size in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=False):
        ended = begun + int(size)
        statuses, grpc_statuses = _STATUS.findall(text), _GRPC_STATUS.findall(text)
        status = int(statuses[-1]) if statuses else None
        grpc_status = int(grpc_statuses[-1]) if grpc_statuses else None
        answers.append(Answer(int(code), status, grpc_status, text, bodies[begun:ended]))
        begun = ended
    return answers


def grpc_call(method: str, *door: str, **more: Any) -> Answer:
    """One unary call."""
    (answer,) = grpc_each([method], *door, **more)
    return answer
