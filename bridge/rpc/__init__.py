"""The gRPC service: what Fluentd's bridge plugins call."""

import os

# Workers are started by fork and exec, which gRPC's handlers for a fork without exec are not for:
# they only write a line about themselves each time. Read when gRPC is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from bridge.rpc.server import Server

__all__ = ["Server"]
