"""What every livery process needs: the front door and the dialer, configuration, telemetry, audit, the error table.

Owns: nothing itself; each module says what it owns. Does not own: any role's decisions.
"""
