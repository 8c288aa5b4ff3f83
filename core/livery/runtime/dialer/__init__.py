"""The way out of a gRPC client: who is dialled is verified before grpc's first byte leaves."""

from livery.runtime.dialer.dialer import Dialer

__all__ = ["Dialer"]
