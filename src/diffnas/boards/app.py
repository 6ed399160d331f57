"""The board as a web application: GET alone, for known hosts, or for those who have the token."""

from __future__ import annotations

import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffnas.boards import pages
from diffnas.boards.library import Library

LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
COOKIE = "diffnas-board"
MOST_COMPARED = 500
POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
POLICY += "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets in requests for one of `hosts`, or, where there is a `token`, those that bring it, whatever name they are for.

    A page of another site can make a browser ask any address under a name of its own (DNS rebinding).  It cannot make it send
    our name as host, nor the cookie that holds the token.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], token: str | None) -> None:
        self.app, self.hosts, self.token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        refusal = self._refusal(Request(scope))
        await (self.app if refusal is None else refusal)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """What answers a request that is not let in, None for one that is."""
        if self.token is None:
            if host_of(request.headers.get("host", "")) in self.hosts:
                return None
            return PlainTextResponse("This board answers to localhost only.\n", 421)
        if self._is_token(request.cookies.get(COOKIE)):
            return None
        if self._is_token(request.query_params.get("token")) and request.method == "GET":
            return self._welcome(request)
        return PlainTextResponse("Open the address with the token that `diffnas board` printed.\n", 403)

    def _is_token(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode(), (self.token or "").encode())

    def _welcome(self, request: Request) -> Response:
        """Goes on to the address without the token, which is in a cookie from then on."""
        query = [(key, value) for key, value in parse_qsl(request.url.query) if key != "token"]
        answer = RedirectResponse("/" + request.url.path.lstrip("/") + (f"?{urlencode(query)}" if query else ""), 303)
        answer.set_cookie(COOKIE, self.token or "", httponly=True, samesite="strict", path="/")
        return answer


def host_of(header: str) -> str:
    """The name in a Host header, without the port: `localhost`, `[::1]`."""
    name, _, port = header.rpartition(":")
    return (name if name and port.isdecimal() else header).lower()


def make_app(library: Library, hosts: frozenset[str] = LOCAL, token: str | None = None) -> Starlette:
    """The application over `library`; a `token` replaces the check of the host."""

    @asynccontextmanager
    async def watching(app: Starlette) -> AsyncIterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=library.watch, args=(stop,), name="board", daemon=True)
        thread.start()
        yield
        stop.set()

    def runs(request: Request) -> Response:
        query, state = (request.query_params.get(key, "") for key in ("q", "state"))
        return _unless_known(request, library.version(), lambda: pages.listing(library, query, state))

    def run(request: Request) -> Response:
        line = library.line(request.path_params["key"])
        if line is None:
            return HTMLResponse(pages.not_found(), 404)
        return _unless_known(request, library.version(line.key), lambda: pages.run_page(library, line))

    def compare(request: Request) -> Response:
        keys = request.query_params.getlist("run")[:MOST_COMPARED]
        return _unless_known(request, library.version(*keys, ""), lambda: pages.comparison(library, keys))

    routes = [
        Route("/", runs),
        Route("/run/{key}", run),
        Route("/compare", compare),
        Route("/board.css", _fixed(pages.style(), "text/css")),
        Route("/board.js", _fixed(pages.script(), "text/javascript")),
        Route("/favicon.svg", _fixed(pages.ICON, "image/svg+xml")),
    ]
    guards = [Middleware(Guard, hosts=hosts, token=token), Middleware(GZipMiddleware, minimum_size=2000)]
    return Starlette(routes=routes, middleware=guards, lifespan=watching, exception_handlers={404: _missing})


def _unless_known(request: Request, version: str, page: Callable[[], str]) -> Response:
    """The page, or that nothing has changed since the browser asked last."""
    tag = f'"{version}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return HTMLResponse(page(), headers={"ETag": tag})


def _fixed(content: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


async def _missing(request: Request, error: Exception) -> Response:
    return HTMLResponse(pages.not_found(), 404)
