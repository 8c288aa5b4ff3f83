"""The issuance log: an append-only Merkle tree over everything the authority meant to sign (RFC 6962)."""
