"""Certificates as bytes and rules: profiles, assembly, lint, and what is taken from a CSR. Pure: no key, no clock."""
