"""The generated descriptors are, row for row, the wire of the published interfaces."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor

import livery.wire

GOLDEN = Path(__file__).parents[2] / "vectors" / "wire_golden.tsv"
Row = tuple[str, ...]

SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
}


def golden_rows() -> list[Row]:
    lines = GOLDEN.read_text().splitlines()
    return [tuple(line.split("\t")) for line in lines if not line.startswith("#")]


def golden_methods() -> list[tuple[str, str, str, str]]:
    return [(row[1], row[2], row[3], row[4]) for row in golden_rows() if row[0] == "method"]


def wire_modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(livery.wire.__path__, "livery.wire.")
    return [importlib.import_module(module.name) for module in found]


def wire_files() -> list[FileDescriptor]:
    return [module.DESCRIPTOR for module in wire_modules() if module.__name__.endswith("_pb2")]


def type_of(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return field.message_type.full_name
    if field.enum_type is not None:
        return field.enum_type.full_name
    return SCALARS[field.type]


def field_row(field: FieldDescriptor) -> Row:
    oneof = field.containing_oneof
    assert field.containing_type is not None  # None for extensions only
    synthetic = oneof is not None and oneof.name == f"_{field.name}"  # how proto3 marks a field `optional`
    head = ("field", field.containing_type.full_name, str(field.number), field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        return (*head, "map", f"{type_of(entry['key'])},{type_of(entry['value'])}", "-")
    label = "repeated" if field.is_repeated else "optional" if synthetic else "singular"
    return (*head, label, type_of(field), oneof.name if oneof is not None and not synthetic else "-")


def enum_rows(enum: EnumDescriptor) -> Iterator[Row]:
    yield ("enum", enum.full_name)
    yield from (("value", enum.full_name, str(value.number), value.name) for value in enum.values)


def message_rows(message: Descriptor) -> Iterator[Row]:
    if message.GetOptions().map_entry:
        return
    yield ("message", message.full_name)
    yield from map(field_row, message.fields)
    for enum in message.enum_types:
        yield from enum_rows(enum)
    for nested in message.nested_types:
        yield from message_rows(nested)


def kind_of(client_streaming: bool, server_streaming: bool) -> str:
    kinds = {
        (False, False): "unary",
        (False, True): "server-stream",
        (True, True): "bidi",
        (True, False): "client-stream",
    }
    return kinds[client_streaming, server_streaming]


def service_rows(service: ServiceDescriptor) -> Iterator[Row]:
    yield ("service", service.full_name)
    for method in service.methods:
        kind = kind_of(method.client_streaming, method.server_streaming)
        path = f"/{service.full_name}/{method.name}"
        yield ("method", path, kind, method.input_type.full_name, method.output_type.full_name)


def descriptor_rows() -> list[Row]:
    rows: list[Row] = []
    for file in wire_files():
        for message in file.message_types_by_name.values():
            rows += message_rows(message)
        for enum in file.enum_types_by_name.values():
            rows += enum_rows(enum)
        for service in file.services_by_name.values():
            rows += service_rows(service)
    return rows


def test_the_golden_table_says_each_thing_once_and_is_as_large_as_the_interfaces() -> None:
    rows = golden_rows()
    assert len(rows) == len(set(rows))
    sizes = {kind: sum(row[0] == kind for row in rows) for kind in ("message", "field", "value", "service", "method")}
    assert sizes == {"message": 198, "field": 393, "value": 30, "service": 14, "method": 79}


def test_no_message_field_enum_or_method_of_the_interfaces_is_missing_or_different() -> None:
    assert sorted(set(golden_rows()) - set(descriptor_rows())) == []


def test_the_descriptors_hold_nothing_that_the_interfaces_do_not_have() -> None:
    assert sorted(set(descriptor_rows()) - set(golden_rows())) == []


class RecordingChannel:
    """A channel that only remembers which methods a stub asks for, of which kind and with which answer."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def _of_kind(self, kind: str) -> Callable[..., None]:
        def record(path: str, response_deserializer: Any, **_: object) -> None:
            self.rows.append((path, kind, response_deserializer.__self__.DESCRIPTOR.full_name))

        return record

    @property
    def unary_unary(self) -> Callable[..., None]:
        return self._of_kind("unary")

    @property
    def unary_stream(self) -> Callable[..., None]:
        return self._of_kind("server-stream")

    @property
    def stream_stream(self) -> Callable[..., None]:
        return self._of_kind("bidi")


def flat_modules() -> list[ModuleType]:
    return [module for module in wire_modules() if module.__name__.endswith("_api")]


def test_the_stubs_of_the_flat_modules_call_every_method_by_its_full_path() -> None:
    channel = RecordingChannel()
    for module in flat_modules():
        for name in module.__all__:
            if name.endswith("Stub") and not name.endswith("AsyncStub"):
                getattr(module, name)(channel)
    expected = [(path, kind, response) for path, kind, _, response in golden_methods()]
    assert sorted(channel.rows) == sorted(expected)


class RecordingServer:
    """A server that only remembers which methods a service registers, of which kind and for which request."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same handlers come by the other method too."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        for name, handler in handlers.items():
            kind = kind_of(handler.request_streaming, handler.response_streaming)
            request = handler.request_deserializer.__self__.DESCRIPTOR.full_name
            self.rows.append((f"/{service}/{name}", kind, request))


def test_the_servicers_of_the_flat_modules_register_every_method_by_its_full_path() -> None:
    server = RecordingServer()
    for module in flat_modules():
        for name in module.__all__:
            if name.endswith("Servicer"):
                getattr(module, f"add_{name}_to_server")(getattr(module, name)(), server)
    expected = [(path, kind, request) for path, kind, request, _ in golden_methods()]
    assert sorted(server.rows) == sorted(expected)


@pytest.mark.parametrize("kind", ["message", "enum"])
def test_every_top_level_type_is_reachable_by_a_flat_module(kind: str) -> None:
    reachable = {
        getattr(module, name).DESCRIPTOR.full_name
        for module in flat_modules()
        for name in module.__all__
        if hasattr(getattr(module, name), "DESCRIPTOR")
    }
    declared = {row[1] for row in golden_rows() if row[0] == kind}
    top_level = {name for name in declared if name.rpartition(".")[0] not in {row[1] for row in golden_rows()}}
    assert top_level <= reachable
