"""Greets whoever calls, as often as asked. Messages are plain bytes, so that no generated code is needed."""

from concurrent import futures

import grpc


def hello(request, context):
    caller = dict(context.invocation_metadata()).get("starling-caller", "nobody")
    return f"hello {request.decode()}, you are {caller}".encode()


def count(request, context):
    for number in range(int(request)):
        yield str(number + 1).encode()


server = grpc.server(futures.ThreadPoolExecutor(8))
methods = {
    "Hello": grpc.unary_unary_rpc_method_handler(hello),
    "Count": grpc.unary_stream_rpc_method_handler(count),
}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("example.Greeter", methods),))
server.add_insecure_port("127.0.0.1:50051")
server.start()
server.wait_for_termination()
