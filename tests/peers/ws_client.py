"""A WebSocket client: ws_client.py HOST:PORT CONNECTIONS. Says what it found as JSON."""

import asyncio
import json
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

URL = "ws://" + sys.argv[1]
CONNECTIONS = int(sys.argv[2])
OPTIONS = {"max_size": 1 << 26, "ping_interval": None, "open_timeout": 60, "compression": None, "proxy": None}


async def talk():
    """Text, bytes, fragments both ways, ping and a large message on one connection."""
    async with connect(URL + "/echo", **OPTIONS) as socket:
        await socket.send("grüße")
        assert await socket.recv() == "grüße"
        big = os.urandom(10 << 20)
        await socket.send(big)
        assert await socket.recv() == big
        await socket.send([b"one", b"", b"two"])
        assert await socket.recv() == b"onetwo"
        await socket.send("fragments 500")
        pieces = [piece async for piece in socket.recv_streaming()]
        assert "".join(pieces) == "a" * 500 and len(pieces) >= 500, len(pieces)
        await asyncio.wait_for(await socket.ping(b"are you there"), 30)
        await socket.close(4321, "enough")
    return [socket.protocol.close_rcvd.code, socket.protocol.close_rcvd.reason]


async def closed_with(code):
    async with connect(f"{URL}/close?{code}", **OPTIONS) as socket:
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            return [closed.rcvd.code, closed.rcvd.reason]


async def refused(path):
    try:
        async with connect(URL + path, **OPTIONS):
            return None
    except InvalidStatus as refusal:
        answer = refusal.response
        return [answer.status_code, answer.body.decode(), answer.headers.get("starling-error", "")]


async def first_word(path):
    async with connect(URL + path, **OPTIONS) as socket:
        return await socket.recv()


async def crowd():
    """All connections open at the same time, then a word on each."""
    sockets = []
    for begin in range(0, CONNECTIONS, 100):
        batch = [connect(URL + "/echo", **OPTIONS) for _ in range(begin, min(begin + 100, CONNECTIONS))]
        sockets += await asyncio.gather(*batch)
    await asyncio.gather(*(socket.send(str(n)) for n, socket in enumerate(sockets)))
    words = await asyncio.gather(*(socket.recv() for socket in sockets))
    assert words == [str(n) for n in range(CONNECTIONS)]
    await asyncio.gather(*(socket.close() for socket in sockets))
    return len(sockets)


async def main():
    print(
        json.dumps(
            {
                "talk": await talk(),
                "closed": [await closed_with(code) for code in (1000, 1001, 3000, 4999)],
                "denied": await refused("/denied"),
                "plain": await refused("/plain"),
                "push": await first_word("/push"),
                "caller": await first_word("/caller"),
                "crowd": await crowd(),
            }
        )
    )


asyncio.run(main())
