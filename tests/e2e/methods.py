"""Every gRPC method that livery speaks, read from the wire's own descriptors: none can be forgotten."""

from __future__ import annotations

from google.protobuf.descriptor import FileDescriptor

from livery.wire import (
    agent_api,
    agent_debug_api,
    agent_logger_api,
    bundle_api,
    debug_api,
    delegated_api,
    entry_api,
    livery_api,
    localauthority_api,
    logger_api,
    svid_api,
    trustdomain_api,
    workload_api,
)

_APIS = (
    agent_api,
    agent_debug_api,
    agent_logger_api,
    bundle_api,
    debug_api,
    delegated_api,
    entry_api,
    livery_api,
    localauthority_api,
    logger_api,
    svid_api,
    trustdomain_api,
    workload_api,
)
_BESIDE = ("/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")


def every_method() -> list[str]:
    """`/package.Service/Method`, all of them, those of the usual companions included."""
    files: dict[str, FileDescriptor] = {}
    for api in _APIS:
        for value in vars(api).values():
            descriptor = getattr(value, "DESCRIPTOR", None)
            file = getattr(descriptor, "file", None)
            if file is not None:
                files[file.name] = file
    found = [
        f"/{service.full_name}/{method.name}"
        for file in files.values()
        for service in file.services_by_name.values()
        for method in service.methods
    ]
    return sorted({*found, *_BESIDE})
