"""Attestation: proving this node to the CA (`node`), and finding out who calls on it (`workload`)."""
