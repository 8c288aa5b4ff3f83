"""The front door of a gRPC server: who connects is authenticated before grpc sees a byte.

A connection's way: `door` (listen) → `arrivals` (who is it?) → `gate` (let in) → grpc → `call_interceptor` (each call
has its caller) → a servicer. `upkeep` ends what has to end.
"""

from livery.runtime.front_door.door import FrontDoor

__all__ = ["FrontDoor"]
