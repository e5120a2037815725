"""A gRPC server without protobuf: messages are bytes. grpc_server.py HOST. Prints its port.

Methods of test.Talk: Unary, Down (a number of bytes in pieces), Up (says how much came), Both (sends back what comes),
Squeeze (the same as Unary, compressed),
Fail (a status with details), Wait (until it is cancelled), Seen (how many Waits ended, by how), Caller (who called).
It also answers grpc.health.v1.Health/Check: SERVING, or NOT_SERVING after a call of test.Talk/Sick.
"""

import sys
import threading
from concurrent import futures

import grpc

PIECE = 1 << 20
ended = []
sick = threading.Event()


def unary(request, context):
    fields = {key: value for key, value in context.invocation_metadata()}
    last = [("x-left", str(int(context.time_remaining() or 0)))]
    # As large as it came, as metadata of both kinds.
    if "x-big" in fields:
        context.send_initial_metadata([("x-big", fields["x-big"])])
        last.append(("x-big-bin", fields["x-big"].encode()))
    context.set_trailing_metadata(last)
    return request[::-1]


def squeeze(request, context):
    context.set_compression(grpc.Compression.Gzip)
    return request[::-1]


def down(request, context):
    size = int(request)
    while size > 0:
        yield b"d" * min(size, PIECE)
        size -= PIECE


def up(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def both(requests, context):
    for request in requests:
        yield request.upper()


def fail(request, context):
    context.set_trailing_metadata([("x-why", "because")])
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "naïve 100%")


def wait(request, context):
    over = threading.Event()
    context.add_callback(over.set)
    yield b"begun"
    over.wait(60)
    ended.append("over" if over.is_set() else "late")


def seen(request, context):
    return str(len(ended)).encode()


def caller(request, context):
    return dict(context.invocation_metadata()).get("starling-caller", "").encode()


def fall_ill(request, context):
    sick.set()
    return b""


def check(request, context):
    if request not in (b"", b"\x0a\x09test.Talk"):
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return b"\x08\x02" if sick.is_set() else b"\x08\x01"


def main():
    options = [("grpc.max_metadata_size", 64 * 1024), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(32), options=options)
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Squeeze": grpc.unary_unary_rpc_method_handler(squeeze),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Wait": grpc.unary_stream_rpc_method_handler(wait),
        "Seen": grpc.unary_unary_rpc_method_handler(seen),
        "Caller": grpc.unary_unary_rpc_method_handler(caller),
        "Sick": grpc.unary_unary_rpc_method_handler(fall_ill),
    }
    health = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("test.Talk", methods),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
        )
    )
    port = server.add_insecure_port(f"{sys.argv[1]}:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


main()
