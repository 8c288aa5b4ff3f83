"""Values a decision is made of: the call, its entities, the schema they follow and the answer.

Owns: reading an asked call into Cedar's terms. Does not own: policies (`engine`), or any I/O but its own schema file.
"""
