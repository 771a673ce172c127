"""The files of the live page: at `/` the page itself, below `/page/` what it consists of.

They are the same for everybody and hold nothing of anybody, so that no key is asked for. All that the page
shows it asks of the API, with the key that its reader types in. Its content security policy lets it load
nothing from elsewhere, and talk to nobody else.
"""

from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOLDER = Path(__file__).parent / "static"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # may be kept, but each use asks by ETag whether it is still the newest
}

_MIN_COMPRESSED = 1_000
"""Bytes from which on a file is worth compressing."""


class PageRoute:
    """Stands for the page in metrics and log lines, where a route would."""

    path = "/page"


def serve_page(app: FastAPI) -> None:
    """Add the page to an application, behind all routes of the API."""
    files = GZipMiddleware(_PageFiles(StaticFiles(directory=FOLDER)), minimum_size=_MIN_COMPRESSED)
    app.mount("/page", files)
    index = Route("/", _Index(files), methods=["GET", "HEAD"], include_in_schema=False)
    app.router.routes.append(index)


class _PageFiles:
    """ASGI application: files with the page's headers."""

    def __init__(self, files: StaticFiles) -> None:
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = PageRoute

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._files(scope, receive, send_with_policy)


class _Index:
    """ASGI application: the page itself, whatever the path."""

    def __init__(self, files: ASGIApp) -> None:
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = PageRoute
        path = scope.get("root_path", "") + "/index.html"
        await self._files({**scope, "path": path}, receive, send)
