"""Finding out what a calling process is: one module per method, and their sum in `attestation`."""
