"""Proving this node to the CA: one module per method, all of the shape in `attestor`."""
