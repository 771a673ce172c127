"""Requests that mean a server no good, as raw bytes.

    python -m tests.support.hostile_requests URL COUNT [KEY]

Prints how they were answered (0: not in time, or not at all).
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

_AT_ONCE = 16
_PATIENCE_S = 2.0
"""So long an answer is awaited: some requests announce more than they send, and never get one."""
_METHODS = ("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "BREW", "\x00", "G" * 300)
_IDS = (
    "u", "", "..", "../../etc/passwd", "%00", "%ff%fe", "%E2%80%A8", "a/b//c", "x" * 3000, "%", "%zz",
    "recommendations", "\u202e", "'; DROP TABLE users; --", "${jndi:ldap://x}", "<script>", "%2e%2e%2f" * 50,
)  # fmt: skip
_ROUTES = (
    "/v1/users/{}/recommendations", "/v1/users/{}/rank", "/v1/users/{}", "/v1/items/{}/similar", "/v1/events",
    "/v1/beacon", "/v1/pixel", "/v1/popular", "/v1/recommendations", "/metrics", "/readyz", "/docs/{}",
    "/openapi.json", "/{}", "/page/{}", "/v1/items", "/v1/items/{}", "/v1/users/active", "/v1/users/{}/trace",
    "/v1/live/history", "/v1/dead-letters", "/v1/versions", "/v1/versions/{}/dynamics",
    "/v1/versions/announce",
)  # fmt: skip
_VALUES = ("1", "-1", "0", "1e999", "NaN", "9" * 400, "true", "", "%00", "[]", "{}", "\ud7ff", "a" * 5000)
_NAMES = (
    "k",
    "exclude",
    "exclude_seen",
    "where",
    "wait_for",
    "wait",
    "category",
    "boost",
    "user_id",
    "api_key",
    "q",
    "limit",
    "every",
    "version",
)
_BODIES = (
    b"", b"{", b"[" * 50_000, b'{"a":' * 20_000, b"null", b"[]", b"{}", b"\xff\xfe", b'{"k": 1e400}',
    b'{"k": NaN}', b'{"exclude": [null]}', b'{"exclude": {"a": 1}}', b'{"k": "\\ud800"}',
    b'{"events": [{"user_id": "u"}]}', b'{"user_id": 1, "item_id": []}', b'"' + b"x" * 100_000 + b'"',
    b'{"k": 1, "k": 2}', b" " * 1_100_000, b'{"items": ["a"]}', b'{"exclude": ["' + b"x" * 900_000 + b'"]}',
)  # fmt: skip


def hostile_request(seed: random.Random, key: str | None = None) -> bytes:
    """A request: mostly well-formed HTTP with nonsense in it, sometimes no HTTP."""
    if seed.random() < 0.1:
        return _no_http(seed)
    method = seed.choice(_METHODS) if seed.random() < 0.3 else seed.choice(("GET", "POST"))
    path = seed.choice(_ROUTES).format(quote(seed.choice(_IDS), safe="/%.;"))
    parameters = [f"{seed.choice(_NAMES)}={quote(seed.choice(_VALUES))}" for _ in range(seed.randrange(4))]
    query = "?" + "&".join(parameters) if parameters else ""
    body = seed.choice(_BODIES) if method in ("POST", "PUT", "DELETE") else b""
    headers = [f"{method} {path}{query} HTTP/1.1", "host: eddy", "connection: close"]
    if key and seed.random() < 0.9:
        headers.append(f"x-api-key: {key}")
    headers += seed.sample(_HEADERS, seed.randrange(3))
    length = len(body) if seed.random() < 0.9 else seed.choice((-1, 0, 5, 10**30))
    if body or length:
        headers.append(f"content-length: {length}")
    return "\r\n".join(headers).encode("latin-1", "replace") + b"\r\n\r\n" + body


_HEADERS = [
    "x-request-id: " + "y" * 1000, "traceparent: 00-x", "authorization: Bearer", "transfer-encoding: chunked",
    "content-type: application/xml", "expect: 100-continue", "origin: null", "x-forwarded-for: ' OR 1=1",
    "cookie: " + "c" * 8000, "accept-encoding: *;q=9", "range: bytes=0-,0-,0-", "upgrade: websocket",
]  # fmt: skip


def _no_http(seed: random.Random) -> bytes:
    kind = seed.randrange(5)
    if kind == 0:
        return seed.randbytes(seed.randrange(1, 2000))
    if kind == 1:
        return b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n\r\n"
    if kind == 2:
        return b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 60_000 + b"\r\n"
    if kind == 3:
        return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + seed.randbytes(200)  # TLS
    return b"POST /v1/events HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx"


async def send_all(address: tuple[str, int], requests: Iterable[bytes]) -> Counter[int]:
    """Send each on a connection of its own, several at once; returns how often each status came, 0 for none.

    Errors: OSError when the server does not accept a connection any more.
    """
    statuses, pending = Counter[int](), iter(requests)

    async def send_some() -> None:
        for request in pending:
            statuses[await _send(address, request)] += 1

    await asyncio.gather(*(send_some() for _ in range(_AT_ONCE)))
    return statuses


async def _send(address: tuple[str, int], request: bytes) -> int:
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            writer.write(request)
            line = await reader.readline()
            while await reader.read(1 << 16):
                pass
        return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else 0
    except (ConnectionError, TimeoutError):
        return 0
    finally:
        writer.close()


def main() -> None:
    """The command."""
    url, count, *key = sys.argv[1:]
    parts, seed = urlsplit(url), random.Random()
    requests = (hostile_request(seed, *key) for _ in range(int(count)))
    statuses = asyncio.run(send_all((parts.hostname or "", parts.port or 80), requests))
    print(dict(sorted(statuses.items())))


if __name__ == "__main__":
    main()
