"""Sends back whatever it is sent, after saying who is there."""

import asyncio

from websockets.asyncio.server import serve


async def chat(socket):
    caller = socket.request.headers.get("starling-caller", "nobody")
    await socket.send(f"hello, you are {caller}")
    async for message in socket:
        await socket.send(message)


async def main():
    async with serve(chat, "127.0.0.1", 8765):
        await asyncio.Future()


asyncio.run(main())
