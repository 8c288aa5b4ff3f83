"""Writes `core/livery/wire` from the .proto files beside this script; `--check` only compares.

Owns: every file under `core/livery/wire` but the two in `HANDWRITTEN`. Does not own: the .proto files, which are the
source. A file in that folder that no .proto explains is removed, or reported by `--check`.

Invariants: the output depends on the .proto files and the locked tools alone (no paths, no times); nothing generated is
importable under a name outside `livery.wire`; the Workload API registers in `livery.wire.private_pool`, never in
protobuf's default pool.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

PROTO = Path(__file__).parent
WIRE = PROTO.parent / "livery" / "wire"
HANDWRITTEN = frozenset({"__init__.py", "private_pool.py"})
PRIVATE = "workload/"

# What the rest of livery imports: a flat module for each API, and the folder of its .proto files.
FLAT: Mapping[str, str] = {
    "types_api": "spire/api/types",
    "agent_api": "spire/api/server/agent/v1",
    "bundle_api": "spire/api/server/bundle/v1",
    "entry_api": "spire/api/server/entry/v1",
    "svid_api": "spire/api/server/svid/v1",
    "trustdomain_api": "spire/api/server/trustdomain/v1",
    "localauthority_api": "spire/api/server/localauthority/v1",
    "debug_api": "spire/api/server/debug/v1",
    "logger_api": "spire/api/server/logger/v1",
    "delegated_api": "spire/api/agent/delegatedidentity/v1",
    "agent_debug_api": "spire/api/agent/debug/v1",
    "agent_logger_api": "spire/api/agent/logger/v1",
    "workload_api": "workload",
    "livery_api": "livery/v1",
}

Tree = dict[str, str]  # path below core/livery/wire -> text


class GenerationError(Exception):
    """The stubs could not be generated; the text says which tool failed."""


def run_protoc(sources: Iterable[str], out: Path) -> FileDescriptorSet:
    """Compiles `sources` (paths below core/proto) into `out` and returns what they declare."""
    declared = out.parent / "declared.bin"
    arguments = [
        "protoc",
        f"-I{PROTO}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        # The plug-ins of the interpreter that runs this, whatever PATH says.
        f"--plugin=protoc-gen-mypy={Path(sys.executable).parent / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).parent / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        # Concrete: a servicer may leave a method out, as grpc allows, and answers UNIMPLEMENTED there.
        f"--mypy_grpc_out=quiet,generate_concrete_servicer_stubs:{out}",
        f"--descriptor_set_out={declared}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise GenerationError("protoc failed; its own message stands above")
    return FileDescriptorSet.FromString(declared.read_bytes())


def rewrite(path: str, text: str) -> str:
    """Moves a generated module below `livery.wire`, and the Workload API's into its own pool."""
    text = re.sub(r"^from (spire|livery|workload)\b", r"from livery.wire.\1", text, flags=re.MULTILINE)
    text = text.replace(
        "BuildTopDescriptorsAndMessages(DESCRIPTOR, '", "BuildTopDescriptorsAndMessages(DESCRIPTOR, 'livery.wire."
    )
    if path.endswith("_pb2_grpc.py"):
        text = unimplemented_for_aio(text)
    if path.startswith(PRIVATE) and path.endswith("_pb2.py"):
        text = into_private_pool(text)
    return text


def into_private_pool(text: str) -> str:
    """Replaces the two mentions of protobuf's default pool."""
    text = text.replace("_descriptor_pool.Default()", "_private_pool.POOL")
    text = text.replace("_symbol_database.Default()", "_symbol_database.SymbolDatabase(pool=_private_pool.POOL)")
    marker = "# @@protoc_insertion_point(imports)\n"
    return text.replace(marker, "from livery.wire import private_pool as _private_pool\n" + marker)


def unimplemented_for_aio(text: str) -> str:
    """Makes a method that a servicer leaves out end by `context.abort`.

    The stock body raises NotImplementedError, which a grpc.aio server runs in a thread and logs as a crash, and which
    an interceptor cannot tell from our own fault.
    """
    stock = re.compile(
        r"    def (?P<name>\w+)\((?P<args>self, request(?:_iterator)?, context)\):\n"
        r"(?P<doc>(?:        .*\n|\n)*?)"
        r"        context\.set_code\(grpc\.StatusCode\.UNIMPLEMENTED\)\n"
        r"        context\.set_details\('Method not implemented!'\)\n"
        r"        raise NotImplementedError\('Method not implemented!'\)\n"
    )
    return stock.sub(
        r"    async def \g<name>(\g<args>):\n\g<doc>"
        r"        await context.abort(grpc.StatusCode.UNIMPLEMENTED, 'method \g<name> not implemented')\n",
        text,
    )


def flat_module(name: str, files: Iterable[FileDescriptorProto]) -> str:
    """The text of one flat module: every message, enum, stub and servicer of `files`."""
    imports: list[str] = []
    async_stubs: dict[str, str] = {}
    exported: list[str] = []
    for file in files:
        module = "livery.wire." + file.name.removesuffix(".proto").replace("/", ".") + "_pb2"
        names = sorted([m.name for m in file.message_type] + [e.name for e in file.enum_type])
        imports += [f"from {module} import {n} as {n}" for n in names]
        exported += names
        for service in file.service:
            names = [f"{service.name}Servicer", f"{service.name}Stub", f"add_{service.name}Servicer_to_server"]
            imports += [f"from {module}_grpc import {n} as {n}" for n in names]
            async_stubs[service.name] = f"{module}_grpc"
            exported += [*names, f"{service.name}AsyncStub"]
    clashes = {n for n in exported if exported.count(n) > 1}
    if clashes:
        raise GenerationError(f"{name} would export twice: {', '.join(sorted(clashes))}")
    return flat_text(name, imports, async_stubs, exported)


def flat_text(name: str, imports: list[str], async_stubs: Mapping[str, str], exported: list[str]) -> str:
    """Lays out a flat module; an async stub is a type only, at run time one stub serves both kinds of channel."""
    lines = [f'"""Generated by core/proto/generate.py: the {name.removesuffix("_api")} API in one flat module."""', ""]
    lines += ["from __future__ import annotations", "", "from typing import TYPE_CHECKING", ""] if async_stubs else []
    lines += [*imports, ""]
    if async_stubs:
        lines += ["if TYPE_CHECKING:"]
        lines += [f"    from {module} import {n}AsyncStub as {n}AsyncStub" for n, module in async_stubs.items()]
        lines += ["else:", *[f"    {n}AsyncStub = {n}Stub" for n in async_stubs], ""]
    lines += ["__all__ = [", *[f'    "{n}",' for n in sorted(exported)], "]", ""]
    return "\n".join(lines)


def generate() -> Tree:
    """Everything that belongs below core/livery/wire, but for the handwritten files."""
    sources = sorted(p.relative_to(PROTO).as_posix() for p in PROTO.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        declared = run_protoc(sources, out)
        made = {p.relative_to(out).as_posix(): p.read_text() for p in sorted(out.rglob("*.py*"))}
    files = {f.name: f for f in declared.file}
    tree: Tree = {path: rewrite(path, text) for path, text in made.items() if wanted(path, files)}
    for folder in sorted({parent.as_posix() for path in tree for parent in Path(path).parents} - {"."}):
        tree[f"{folder}/__init__.py"] = '"""Generated by core/proto/generate.py."""\n'
    for name, folder in FLAT.items():
        tree[f"{name}.py"] = flat_module(name, [f for f in declared.file if Path(f.name).parent.as_posix() == folder])
    return tree


def wanted(path: str, files: Mapping[str, FileDescriptorProto]) -> bool:
    """Whether a generated module says anything: a grpc module without a service does not."""
    source = re.sub(r"_pb2(_grpc)?\.pyi?$", ".proto", path)
    return "_pb2_grpc." not in path or bool(files[source].service)


def committed() -> Tree:
    """What stands below core/livery/wire now."""
    found = (p for p in sorted(WIRE.rglob("*")) if p.is_file() and "__pycache__" not in p.parts)
    return {n: p.read_text() for p in found if (n := p.relative_to(WIRE).as_posix()) not in HANDWRITTEN}


def write(tree: Tree) -> None:
    """Makes core/livery/wire equal to `tree`, leaving the handwritten files alone."""
    for stale in committed().keys() - tree.keys():
        (WIRE / stale).unlink()
    for path, text in tree.items():
        target = WIRE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def differences(tree: Tree) -> list[str]:
    """The files that are missing, stale or changed, one line each."""
    current = committed()
    missing = [f"missing: {p}" for p in tree.keys() - current.keys()]
    stale = [f"no .proto explains: {p}" for p in current.keys() - tree.keys()]
    changed = [f"differs: {p}" for p in tree.keys() & current.keys() if tree[p] != current[p]]
    return sorted(missing + stale + changed)


def main(arguments: list[str]) -> int:
    """Writes the stubs, or with `--check` says whether the committed ones are current (exit status 1 if not)."""
    parser = argparse.ArgumentParser(description="Generate core/livery/wire from core/proto.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the committed stubs differ")
    check: bool = parser.parse_args(arguments).check
    tree = generate()
    if not check:
        write(tree)
        return 0
    found = differences(tree)
    for line in found:
        sys.stderr.write(f"core/livery/wire: {line}\n")
    if found:
        sys.stderr.write("The stubs are not what core/proto says; run `make wire` and commit the result.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
