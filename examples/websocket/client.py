"""Talks to the chat through the agent of this host."""

import asyncio

from websockets.asyncio.client import connect


async def main():
    async with connect("ws://127.0.0.1:9001/", proxy=None) as socket:
        print(await socket.recv())
        for word in ("one", "two"):
            await socket.send(word)
            print(await socket.recv())


asyncio.run(main())
