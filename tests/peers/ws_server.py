"""A WebSocket server: ws_server.py HOST. Prints its port.

Paths: /echo sends back what comes, fragmented as it came; /close?CODE closes with that code; /denied answers 401 with a
body; /plain answers 200 as if it knew nothing of upgrades; /push sends before it is spoken to.
"""

import asyncio
import http
import sys

from websockets.asyncio.server import serve


async def handle(socket):
    path = socket.request.path
    if path.startswith("/close?"):
        await socket.close(int(path.partition("?")[2]), "as asked")
        return
    if path == "/push":
        await socket.send("first")
    if path == "/caller":
        await socket.send(socket.request.headers.get("starling-caller", ""))
    async for message in socket:
        if isinstance(message, str) and message.startswith("fragments "):
            await socket.send(["a"] * int(message.split()[1]))
        else:
            await socket.send(message)


def plain(connection, request):
    if request.path == "/denied":
        return connection.respond(http.HTTPStatus.UNAUTHORIZED, "no token\n")
    if request.path == "/plain":
        return connection.respond(http.HTTPStatus.OK, "just a page\n")
    return None


async def main():
    # Big enough for the test's largest message, and no ping of its own that would hide one that got lost.
    async with serve(
        handle, sys.argv[1], 0, process_request=plain, max_size=1 << 26, ping_interval=None, compression=None
    ) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
