"""The authority's gRPC services: the wire's messages in, values to the inside, the wire's messages out.

Owns: one module per service, `rights` (who may call what: one table), `limits` (how often: one table), and the forms
in which IDs, entries and nodes cross the wire. Does not own: decisions, X.509 building, SQL.
"""
