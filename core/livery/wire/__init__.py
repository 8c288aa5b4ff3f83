"""The messages and services on the wire: SPIRE's APIs, the SPIFFE Workload API and livery.v1, generated from core/proto.

Owns: the generated modules, and one flat module for each API (`agent_api`, `types_api`, `workload_api` ...), which is
what the rest of livery imports. Does not own: any meaning; conversion to our own types happens at the doors.

Invariant: nothing here is edited by hand but this file and `private_pool`; `make wire` writes the rest.
"""
