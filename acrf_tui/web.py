"""The app in a browser: textual-serve on the loopback address, behind a secret path.

textual-serve itself lets in whoever reaches the port, and every user of the machine reaches it. So all pages are below
a path that nobody can guess, made anew at each start; a page of another site cannot reach it either, because Host must
be the loopback address (against DNS rebinding) and a WebSocket must come from a page of this server.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import shlex
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from textual_serve.server import Server

from acrf_engine.run.folder import RunError

HOST = "127.0.0.1"
LOOPBACK = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?", re.IGNORECASE)
"""Hosts that a browser names when it talks to this machine, or to its own end of a tunnel (on any port)."""
MOST_WINDOWS = 8
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'; style-src 'self' 'unsafe-inline'",  # no fonts from elsewhere
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class GuardedServer(Server):
    """Serves one app process for each browser window that knows the secret."""

    def __init__(self, command: str, secret: str) -> None:
        super().__init__(command, host=HOST, port=0, title="acrf-tui")
        self.secret = secret
        self._windows = 0

    def initialize_logging(self) -> None:
        """Leave the terminal alone: what goes wrong is in the browser's answer."""

    async def on_startup(self, app: web.Application) -> None:
        """The address is printed once the port is open."""

    async def make_app(self) -> web.Application:
        """The pages of textual-serve below `/SECRET/`; everything else is not there."""
        inner = await self._make_app()
        outer = web.Application(middlewares=[self._guard])
        outer.add_subapp(f"/{self.secret}", inner)
        return outer

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.path.split("/")[1]
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.secret.encode()):
            return web.Response(status=404, text="Not here: open the address that `acrf-tui serve` printed.\n")
        if not LOOPBACK.fullmatch(request.headers.get("Host", "")):
            return web.Response(status=403, text="Only by the loopback address, such as 127.0.0.1.\n")
        origin = request.headers.get("Origin")
        if (origin is None and _is_websocket(request)) or (origin is not None and origin != f"http://{request.host}"):
            return web.Response(status=403, text="Only from a page of this server.\n")
        if _is_websocket(request) and self._windows >= MOST_WINDOWS:
            return web.Response(status=503, text=f"There are {MOST_WINDOWS} windows already: close one.\n")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """The page, with addresses as this browser reaches the server: a tunnel may begin at another port."""
        import aiohttp_jinja2

        size = request.query.get("fontsize", "")
        base = f"//{request.host}/{self.secret}"
        context = {
            "font_size": int(size) if size.isascii() and size.isdigit() and 4 <= int(size[:4]) <= 72 else 16,
            "app_websocket_url": f"ws:{base}/ws",
            "config": {"static": {"url": f"http:{base}/static/"}},
            "application": {"name": self.title},
        }
        return aiohttp_jinja2.render_template("app_index.html", request, context)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """One window: an app process, which ends with it. Runs go on."""
        self._windows += 1
        try:
            return await super().handle_websocket(request)
        finally:
            self._windows -= 1


def _is_websocket(request: web.Request) -> bool:
    return request.path.endswith("/ws") or request.headers.get("Upgrade", "").lower() == "websocket"


def run_server(command: list[str], port: int, say: Callable[[str], Any] = print) -> int:
    """Serve until SIGINT or SIGTERM. Raises RunError where the port is taken."""
    return asyncio.run(_serve(GuardedServer(shlex.join(command), secrets.token_urlsafe(24)), port, say))


async def _serve(server: GuardedServer, port: int, say: Callable[[str], Any]) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(await server.make_app(), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port, shutdown_timeout=2.0).start()
        except OSError as error:
            raise RunError(f"serve: port {port} cannot be used ({error.strerror}; try --port 0)") from None
        taken = runner.addresses[0][1]
        say(f"acrf-tui in a browser on this machine:  http://{HOST}:{taken}/{server.secret}/")
        say(f"from elsewhere, first:                  ssh -L {taken}:{HOST}:{taken} THIS-MACHINE")
        say("Whoever has the address controls your runs. ctrl+c ends; runs go on.")
        await stop.wait()
    finally:
        await runner.cleanup()
    return 0
