"""A gRPC client without protobuf: grpc_client.py HOST:PORT WHAT... does each WHAT and says what it found as JSON."""

import json
import sys
import time

import grpc

PIECE = 1 << 20
OPTIONS = [("grpc.max_metadata_size", 64 * 1024), ("grpc.max_receive_message_length", -1)]
# Generous: other things run on the machine.
PATIENCE = 120

channel = grpc.insecure_channel(sys.argv[1], options=OPTIONS)


def method(kind, name):
    return getattr(channel, kind)(f"/test.Talk/{name}")


def metadata(fields):
    return {key: value for key, value in fields}


def failure(error):
    trailing = metadata(error.trailing_metadata() or ())
    return {
        "code": error.code().name,
        "details": error.details(),
        "reason": trailing.get("starling-error", ""),
        "why": trailing.get("x-why", ""),
    }


def unary():
    return method("unary_unary", "Unary")(b"abc", timeout=PATIENCE).decode()


def caller():
    return method("unary_unary", "Caller")(b"", timeout=PATIENCE).decode()


def down():
    """100 MB in pieces, from the server."""
    return sum(len(piece) for piece in method("unary_stream", "Down")(str(100 * PIECE).encode(), timeout=PATIENCE))


def up():
    """100 MB in pieces, to the server."""
    pieces = (b"u" * PIECE for _ in range(100))
    return int(method("stream_unary", "Up")(pieces, timeout=PATIENCE))


def whole():
    """One message of 100 MB each way."""
    message = b"w" * (100 * PIECE)
    answers = method("stream_stream", "Both")(iter([message]), timeout=PATIENCE)
    return sum(len(answer) for answer in answers)


def both():
    """Each word is sent only after the answer to the one before."""
    words, answers = ["one", "two", "three"], []

    def say():
        for word in words:
            while len(answers) < words.index(word):
                time.sleep(0.001)
            yield word.encode()

    for answer in method("stream_stream", "Both")(say(), timeout=PATIENCE):
        answers.append(answer.decode())
    return answers


def fail():
    try:
        method("unary_unary", "Fail")(b"", timeout=PATIENCE)
    except grpc.RpcError as error:
        return failure(error)


def refused():
    """Any call: what a caller is told when it does not get there."""
    try:
        method("unary_unary", "Unary")(b"abc", timeout=PATIENCE)
    except grpc.RpcError as error:
        return failure(error)


def big():
    """16 KB of metadata in each direction."""
    value = "m" * 16384
    call = method("unary_unary", "Unary")
    _, done = call.with_call(b"abc", metadata=[("x-big", value)], timeout=PATIENCE)
    first, last = metadata(done.initial_metadata()), metadata(done.trailing_metadata())
    return [first.get("x-big") == value, last.get("x-big-bin", b"").decode() == value]


def compressed():
    call = method("unary_unary", "Squeeze")
    return len(call(b"c" * PIECE, compression=grpc.Compression.Gzip, timeout=PATIENCE))


def deadline():
    """A deadline passes on, and what takes longer is cut off here and there."""
    _, done = method("unary_unary", "Unary").with_call(b"", timeout=PATIENCE)
    left = int(metadata(done.trailing_metadata())["x-left"])
    # A busy machine may take a second to begin.
    for seconds in (1, 5, 25):
        begun = []
        try:
            begun.extend(method("unary_stream", "Wait")(b"", timeout=seconds))
        except grpc.RpcError as error:
            if begun or seconds == 25:
                return [0 < left <= PATIENCE, error.code().name, ended_at(1)]


def cancelled():
    """Given up by the client after the first answer."""
    call = method("unary_stream", "Wait")(b"", timeout=PATIENCE)
    first = next(call).decode()
    call.cancel()
    return [first, ended_at(2)]


def ended_at(count):
    """Waits until the server has seen so many calls end."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if int(method("unary_unary", "Seen")(b"", timeout=PATIENCE)) >= count:
            return True
        time.sleep(0.01)
    return False


def broken():
    """Reads until the call breaks. Says so when it has begun, so that someone can break it."""
    try:
        for piece in method("unary_stream", "Wait")(b"", timeout=PATIENCE):
            print(piece.decode(), file=sys.stderr, flush=True)
    except grpc.RpcError as error:
        return failure(error)


def sick():
    method("unary_unary", "Sick")(b"", timeout=PATIENCE)
    return True


print(json.dumps({what: globals()[what]() for what in sys.argv[2:]}))
