"""The decision core: policies in, a `Decision` for each `Call` out. No I/O, no clock, no state but bounded memories."""
