"""What the front door, the dialer and the HTTP server stand on: sockets, TLS, peers, limits.

Owns: nothing itself; each module says what it owns. Does not own: what flows through a connection.
"""
