"""The wire's messages, read into values and written from them, within bounds; no decision."""
