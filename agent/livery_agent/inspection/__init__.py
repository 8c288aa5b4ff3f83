"""How this agent is doing, for those who run it: the keeper's own account, the document and the numbers made of it.

Owns: `status` (last success, last error, who is out of date), `document` (what `livery inspect` shows), `telemetry`
(the metrics). Does not own: what is done about any of it (`keeper`), or who may read it (`doors.admin`).
"""
