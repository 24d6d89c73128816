"""What answers on a machine's own ports: a small page on http ports, a banner on tcp ports.

Used by `leader` inside a machine and by `carriers` for virtual ones. Any path answers, since a probe or a customer may
ask for `/lab` or `/api` as the real program would.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Mapping

import msgspec
from aiohttp import web

from libs.clock import SystemClock
from services.sandbox.wire import PortWish

LOOPBACK = "127.0.0.1"
BACKLOG = 128
TITLES = {8888: "Jupyter", 7681: "Web terminal"}
BANNER = b"dumont sandbox machine\r\n"


async def open_port(
    wish: PortWish, port: int, facts: Mapping[str, str], *, unwell_until: float = 0.0
) -> asyncio.Server:
    """Listen for `wish` on `port`, or on one the system picks when that is 0 or taken.

    Until `unwell_until` (unix seconds) an http port answers 502, as a proxy does before the program behind it is up.
    """
    if wish.protocol == "tcp":
        return await _listen_for_banner(port, BANNER)
    clock = SystemClock()
    title = TITLES.get(wish.port, f"Port {wish.port}")

    async def answer(request: web.BaseRequest) -> web.Response:
        if clock.now().timestamp() < unwell_until:
            return web.Response(status=502, text="Bad Gateway")
        if "application/json" in request.headers.get("Accept", ""):
            return web.Response(body=msgspec.json.encode(dict(facts)), content_type="application/json")
        return web.Response(text=_page(title, facts), content_type="text/html")

    return await _listen_for_pages(port, web.Server(answer, access_log=None))


async def open_banner(banner: bytes) -> asyncio.Server:
    """A tcp port that says `banner` and hangs up."""
    return await _listen_for_banner(0, banner)


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


async def _listen_for_pages(port: int, server: web.Server) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(server, LOOPBACK, port, backlog=BACKLOG, reuse_address=True)
    except OSError:
        if port == 0:
            raise
        return await loop.create_server(server, LOOPBACK, 0, backlog=BACKLOG)


async def _listen_for_banner(port: int, banner: bytes) -> asyncio.Server:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banner)
        writer.close()

    try:
        return await asyncio.start_server(greet, LOOPBACK, port, backlog=BACKLOG, reuse_address=True)
    except OSError:
        if port == 0:
            raise
        return await asyncio.start_server(greet, LOOPBACK, 0, backlog=BACKLOG)


def _page(title: str, facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(fact)}</td></tr>" for name, fact in facts.items())
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        f"<title>{html.escape(title)}</title></head><body><h1>{html.escape(title)}</h1><table>{rows}</table></body></html>"
    )
