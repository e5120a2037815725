"""Calls the greeter through the agent of this host."""

import sys

import grpc

channel = grpc.insecure_channel("127.0.0.1:9001")
try:
    print(channel.unary_unary("/example.Greeter/Hello")(b"bird", timeout=10).decode())
    for number in channel.unary_stream("/example.Greeter/Count")(b"3", timeout=10):
        print(number.decode())
except grpc.RpcError as error:
    sys.exit(f"{error.code().name}: {error.details()}")
