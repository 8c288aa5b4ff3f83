"""The agent's doors: bytes in, bytes out. Who may have what was decided before they are asked."""
