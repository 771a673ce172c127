"""Who asks? A request's API key is looked up before anything else of the request is read."""

from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from eddy.serving.api_keys import CALLER, ApiKeys
from eddy.serving.problems import problem

OPEN_PATHS = frozenset(("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/"))
"""What needs no key, with all that is below `/docs` and `/page`: what operators' tools ask, the API's
description, and the files of the live page.
"""

KEY_IN_QUERY = ("/v1/beacon", "/v1/pixel")
"""Where a page asks that cannot set headers: the key may be in the query, as `api_key`."""

_MAX_KEY_BYTES = 512
_MISSING = "an API key is needed: send it as X-API-Key, or as Authorization: Bearer"
_INVALID = "this API key is not valid"
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="eddy"'}


class Authentication:
    """ASGI middleware: a request without a valid key is answered with 401; of the others the scope says whose
    key it is (`CALLER`).
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and not needs_no_key(scope):
            presented = _presented(scope)
            caller = self.keys.find(presented) if presented else None
            if caller is None:
                refusal = problem(401, _INVALID if presented else _MISSING, _CHALLENGE)
                await refusal(scope, receive, send)
                return
            scope[CALLER] = caller
        await self.app(scope, receive, send)


def needs_no_key(scope: Scope) -> bool:
    """Whether a request is about one of the open paths."""
    path = path_of(scope)
    return path in OPEN_PATHS or path.startswith(("/docs/", "/page/"))


def path_of(scope: Scope) -> str:
    """A request's path, without the part that a proxy has stripped."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _presented(scope: Scope) -> bytes | None:
    """The key that a request carries."""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return _bounded(value)
        if name == b"authorization":
            kind, _, key = value.partition(b" ")
            if kind.lower() == b"bearer":  # others are for a proxy in between
                return _bounded(key.strip())
    if path_of(scope) in KEY_IN_QUERY:
        found = parse_qs(scope["query_string"].decode("latin-1")).get("api_key")
        return _bounded(found[0].encode()) if found else None
    return None


def _bounded(key: bytes) -> bytes | None:
    return key if len(key) <= _MAX_KEY_BYTES else b"too long"
