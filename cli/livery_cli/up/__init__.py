"""`livery up`: every role and two demo services on this machine, supervised by one process."""
