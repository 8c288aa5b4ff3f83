"""The rules a certificate must keep before anybody's key signs it; one function each, each citing what it enforces.

A rule takes a draft and returns what is wrong, or an empty text. Rules are held against the plan as well as against the
standards: the bytes must say what was decided, no more and no less. `livery.identity` verifies afterwards by rules of
its own, written without looking here: the two must agree by themselves.
"""
