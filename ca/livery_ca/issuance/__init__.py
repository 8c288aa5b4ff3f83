"""From a request to a certificate: PREPARE → JOURNAL → SIGN → VERIFY → RECORD, each step with its own type.

Owns: the order of the steps and the proof, in types, that nothing is signed that was not linted and journalled. Does
not own: who may ask (`doors`, `entries`), SQL (`store`), which authority is active (whoever implements `sign.Signers`).
"""
