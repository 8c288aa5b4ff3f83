"""`livery up`: every role and two demo services on this machine, supervised by one process.

This process talks gRPC to its CA and starts children as other users, which takes a fork() that the C library tells grpc
of; grpc's handlers then crash some of the children before they become another program. So they are off from the start.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
