"""This side of a command: its options, and how answers are printed, watched and written."""
