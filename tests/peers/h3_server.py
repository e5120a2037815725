"""An HTTP/3 server that is not ours: aioquic. Says "listening", then answers every request with 200 and "aioquic".

    h3_server.py CERT KEY IP:PORT
"""
import asyncio
import sys

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated


class Server(QuicConnectionProtocol):
    http = None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        for http_event in self.http.handle_event(event) if self.http else ():
            if isinstance(http_event, HeadersReceived):
                self.http.send_headers(http_event.stream_id, [(b":status", b"200")])
                self.http.send_data(http_event.stream_id, b"aioquic\n", end_stream=True)
                self.transmit()


async def main():
    certificate, key, address = sys.argv[1:]
    host, port = address.rsplit(":", 1)
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(certificate, key)
    await serve(host, int(port), configuration=configuration, create_protocol=Server)
    print("listening", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
