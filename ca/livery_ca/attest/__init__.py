"""The authority's half of node attestation: evidence in, an agent's SPIFFE ID and selectors out.

Owns: one module per method, one Protocol (`attestor.NodeAttestor`). Does not own: the agent's half, the certificate
that follows (`issuance`), the row of the node (`store.nodes`), the stream it all happens on (`doors.agent`).
"""
