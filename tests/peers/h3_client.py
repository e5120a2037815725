"""An HTTP/3 client that is not ours: aioquic. Prints one JSON object.

    h3_client.py [--cert PEM --key PEM] [--alpn NAME] --ca PEM --to IP:PORT --name SNI get PATH
    ... post PATH BYTES          a body of that many bytes
    ... connect AUTHORITY BYTES  a tunnel; that many bytes go through it, then our end is closed

    {"status": 200, "bytes": 3, "sha256": "..."}   what came back, and the hash of it and of what was sent
    {"closed": 304, "why": "..."}                  the connection was closed with this QUIC error code
"""
import argparse
import asyncio
import hashlib
import json
import ssl

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, StreamReset

PATIENCE_S = 60
CHUNK = 65536


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.status = None
        self.headers = {}
        self.body = bytearray()
        self.answered = asyncio.Event()
        self.done = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        elif isinstance(event, ConnectionTerminated):
            self.end({"closed": event.error_code, "why": event.reason_phrase})
        elif isinstance(event, StreamReset):
            self.end({"reset": event.error_code})
        if self.http:
            for http_event in self.http.handle_event(event):
                self.http_event_received(http_event)

    def http_event_received(self, event):
        if isinstance(event, HeadersReceived):
            headers = {key.decode(): value.decode() for key, value in event.headers}
            if self.status is None:
                self.status, self.headers = int(headers[":status"]), headers
                self.answered.set()
        elif isinstance(event, DataReceived):
            self.body += event.data
        if getattr(event, "stream_ended", False):
            self.end({"status": self.status})

    def end(self, outcome):
        self.answered.set()
        if not self.done.done():
            self.done.set_result(outcome)

    async def send(self, stream, data):
        """Sends `data` and the end of the stream, without piling it all up."""
        for start in range(0, len(data), CHUNK):
            self.http.send_data(stream, data[start:start + CHUNK], start + CHUNK >= len(data))
            self.transmit()
            while len(self._quic._streams[stream].sender._buffer) > 16 * CHUNK and not self.done.done():
                await asyncio.sleep(0.001)


def request_headers(args):
    if args.what == "connect":
        return [(b":method", b"CONNECT"), (b":authority", args.target.encode())]
    return [
        (b":method", b"GET" if args.what == "get" else b"POST"),
        (b":scheme", b"https"),
        (b":authority", args.name.encode()),
        (b":path", args.target.encode()),
    ]


async def talk(client, args):
    # A server judges our certificate after we have taken its own: the handshake looks complete to us before that.
    stream = client._quic.get_next_available_stream_id()
    client.http.send_headers(stream, request_headers(args), end_stream=args.what == "get")
    client.transmit()
    sent = bytes(index * 131 % 251 for index in range(256)) * (args.bytes // 256 + 1)
    sent = sent[:args.bytes]
    if args.what == "connect":
        await client.answered.wait()
    if args.what != "get" and not client.done.done():
        await client.send(stream, sent)
    outcome = await client.done
    if "status" in outcome:
        outcome.update(bytes=len(client.body), sha256=hashlib.sha256(client.body).hexdigest(),
                       sent_sha256=hashlib.sha256(sent).hexdigest(), text=client.body[:1000].decode(errors="replace"),
                       reason=client.headers.get("starling-error"))
    return outcome


async def run(args):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=[args.alpn or H3_ALPN[0]], server_name=args.name,
                                      cafile=args.ca, verify_mode=ssl.CERT_REQUIRED, idle_timeout=PATIENCE_S)
    if args.cert:
        configuration.load_cert_chain(args.cert, args.key)
    host, port = args.to.rsplit(":", 1)
    try:
        async with connect(host, int(port), configuration=configuration, create_protocol=Client,
                           wait_connected=False) as client:
            client.transmit()
            waiting = asyncio.ensure_future(client.wait_connected())
            await asyncio.wait([waiting, client.done], return_when=asyncio.FIRST_COMPLETED)
            if client.done.done():
                waiting.cancel()
                return client.done.result()
            await waiting
            return await talk(client, args)
    except ConnectionError as error:
        return client.done.result() if client.done.done() else {"closed": None, "why": str(error)}


def main():
    parser = argparse.ArgumentParser()
    for option in ("--cert", "--key", "--alpn"):
        parser.add_argument(option)
    for option in ("--ca", "--to", "--name"):
        parser.add_argument(option, required=True)
    parser.add_argument("what", choices=["get", "post", "connect"])
    parser.add_argument("target")
    parser.add_argument("bytes", type=int, nargs="?", default=0)
    args = parser.parse_args()
    print(json.dumps(asyncio.run(asyncio.wait_for(run(args), PATIENCE_S))))


main()
