"""What this node holds for its workloads: entries, their SVIDs, whom to trust, and who may have which part of it.

Owns: `entry`, `snapshot` (the one coherent truth, and how readers follow it), `entitlement` (what a workload may be
told), `jwt_svids` (tokens on demand). Does not own: how any of it comes from the CA (`keeper`), or its form on the
Workload API (`doors`).
"""
