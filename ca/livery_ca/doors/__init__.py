"""The authority's gRPC services: the wire's messages in, values to the inside, the wire's messages out.

Owns: one module per service, `guard` (who may call what, and how often: one table each), and `messages` (the forms in
which IDs, entries, nodes and CSRs cross the wire). Does not own: decisions, X.509 building, SQL.
"""
