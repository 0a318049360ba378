"""A gRPC server that sends every batch back: ``python -m benchmarks.echo SOCKET``.

What is left of a sidecar without workers, so how much of a call is gRPC's own.
"""

from __future__ import annotations

import sys

import grpc
import uvloop

from bridge.rpc.v1 import sidecar_pb2 as pb


async def describe(_: bytes, __: grpc.aio.ServicerContext) -> bytes:
    return pb.DescribeResponse(max_request_bytes=64 << 20).SerializeToString()


async def process(message: bytes, _: grpc.aio.ServicerContext) -> bytes:
    request = pb.ProcessRequest.FromString(message)
    stream = pb.Stream(tag=request.tag, entries=request.entries, count=request.count)
    return pb.ProcessResponse(streams=[stream], received=request.count).SerializeToString()


async def serve(socket: str) -> None:
    server = grpc.aio.server(options=[("grpc.http2.lookahead_bytes", 4 << 20)])
    calls = {"Describe": describe, "Process": process}
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                "bridge.rpc.v1.Sidecar",
                {name: grpc.unary_unary_rpc_method_handler(call) for name, call in calls.items()},
            )
        ]
    )
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
