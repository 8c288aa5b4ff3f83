"""Figures of this checkout on this machine, held against real peers in the same run: `python -m tests.bench`."""
