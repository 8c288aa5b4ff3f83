"""What every livery process needs: the front door and the dialer, configuration, telemetry, audit, the error table.

`front_door` (gRPC in), `dialer` (gRPC out) and `http` stand on `transport`; the modules beside them know no sockets.

Owns: nothing itself; each module says what it owns. Does not own: any role's decisions.
"""
