"""The other side of a client command: reaching it, what it tells, and its words in ours."""
