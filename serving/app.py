"""The HTTP API.

    GET /v1/users/{user_id}/recommendations?k=20&exclude_seen=true&exclude=ID&exclude=ID
    POST /v1/users/{user_id}/recommendations    {"k": 20, "exclude_seen": true, "exclude": ["ID", "ID"]}
    GET /healthz    200: the process is alive
    GET /readyz     200 when the topics are read up to their ends at the start and a model is loaded, else 503
    GET /metrics    metrics for Prometheus

Answers are JSON, and so is every refusal: {"error": "…"}, with status 400 for a question that cannot be
understood, and 413 for one that is too large.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from eddy.models.errors import EddyError
from eddy.models.untrusted import Unreadable, decoded
from eddy.serving.protocol import MAX_HEAD_BYTES, JsonErrorProtocol, error_body
from eddy.serving.recommend import MAX_K, Question
from eddy.serving.service import Service
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.serving")

_PARAMETERS = ("k", "exclude_seen", "exclude")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_GRACE_S = 10

MAX_EXCLUDED = 10_000
"""So many items a caller may leave out."""

MAX_BODY_BYTES = 1 << 20
"""The largest body of a posted question."""


class QuestionError(EddyError):
    """A question that cannot be understood: one line for the caller."""


class QuestionBody(msgspec.Struct, forbid_unknown_fields=True):
    """A posted question; the settings say what is absent or null."""

    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_K)] | None = None
    exclude_seen: bool | None = None
    exclude: Annotated[list[str], msgspec.Meta(max_length=MAX_EXCLUDED)] | None = None


_decode_body = msgspec.json.Decoder(QuestionBody).decode


def parse_question(user_id: str, query: QueryParams, settings: Settings) -> Question:
    """A question from the path and the query string. Errors: QuestionError naming the parameter."""
    _require_user(user_id)
    for name in query:
        if name not in _PARAMETERS:
            raise QuestionError(f"unknown parameter {name!r}; there are {', '.join(_PARAMETERS)}")
    k = query.get("k", str(settings.k))
    if not (k.isascii() and k.isdigit() and len(k) < 6 and 1 <= int(k) <= MAX_K):
        raise QuestionError(f"k must be a whole number from 1 to {MAX_K}, not {k!r}")
    exclude_seen = query.get("exclude_seen", str(settings.exclude_seen)).lower()
    if exclude_seen not in _TRUTH:
        raise QuestionError(f"exclude_seen must be true or false, not {exclude_seen!r}")
    exclude = query.getlist("exclude")
    if len(exclude) > MAX_EXCLUDED:
        raise QuestionError(f"exclude: {len(exclude)} items; at most {MAX_EXCLUDED} can be left out")
    return Question(user_id, int(k), _TRUTH[exclude_seen], tuple(exclude))


def parse_posted(user_id: str, body: bytes, settings: Settings) -> Question:
    """A question from the path and a JSON body. Errors: QuestionError naming what is wrong with it."""
    _require_user(user_id)
    try:
        posted = decoded(_decode_body, body)
    except Unreadable as error:
        raise QuestionError(f"the body is no question in JSON: {error}") from None
    return Question(
        user_id,
        settings.k if posted.k is None else posted.k,
        settings.exclude_seen if posted.exclude_seen is None else posted.exclude_seen,
        tuple(posted.exclude or ()),
    )


def _require_user(user_id: str) -> None:
    if not user_id:
        raise QuestionError("user_id is empty: /v1/users/{user_id}/recommendations")


async def _body(request: Request) -> bytes:
    """The request's body. Errors: HTTPException 413 as soon as it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def new_app(service: Service) -> Starlette:
    """The application with its routes; the caller starts and stops `service`."""
    metrics = service.metrics

    async def recommendations(request: Request) -> Response:
        user_id, settings = request.path_params["user_id"], service.settings
        try:
            if request.method == "POST":
                question = parse_posted(user_id, await _body(request), settings)
            else:
                question = parse_question(user_id, request.query_params, settings)
        except QuestionError as error:
            metrics.requests.labels("refused").inc()
            return _error(str(error), 400)
        with metrics.seconds.time():
            answer = await service.recommend(question)
        metrics.requests.labels("known" if answer.known else "unknown").inc()
        return _json(answer)

    async def healthz(_: Request) -> Response:
        return _json({"alive": True})

    async def readyz(_: Request) -> Response:
        reasons = service.not_ready()
        state = {"ready": not reasons, "reasons": reasons, "problems": service.problems()}
        return _json(state, 503 if reasons else 200)

    async def prometheus(_: Request) -> Response:
        metrics.ready.set(not service.not_ready())
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(error.detail, error.status_code, error.headers)

    async def failed(_: Request, error: Exception) -> Response:
        metrics.requests.labels("failed").inc()
        return _error(f"the server failed to answer ({type(error).__name__}); its log says more", 500)

    return Starlette(
        routes=[
            # An id may hold slashes: everything between the two fixed parts is the id.
            Route("/v1/users/{user_id:path}/recommendations", recommendations, methods=["GET", "POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", prometheus),
        ],
        exception_handlers={HTTPException: refused, Exception: failed},
    )


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _error(message: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return Response(error_body(message), status, headers, media_type="application/json")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run_server`: uvicorn would raise them again after its shutdown."""
        yield


def listen(settings: Settings) -> socket.socket:
    """A listening socket. Errors: EddyError when the port is taken or the address is another machine's."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, which `socket.create_server` does not do: only then does asyncio set TCP_NODELAY
    # on the connections that it accepts. Without it headers and body, two writes, wait 40 ms for each other.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise EddyError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another port with "
            "EDDY_PORT (0: any free one) or another address with EDDY_HOST"
        ) from None
    return listening


async def run_server(settings: Settings, on_start: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT; returns when the questions under way are answered.

    `on_start` is called with the URL as soon as it answers. Errors: EddyError when the port is taken or the
    cluster does not answer, and whatever ended the service.
    """
    # 1. Take the port first: everything else would have to be undone if it were taken.
    with listen(settings) as listening:
        host, port = listening.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        service = Service(settings)
        config = uvicorn.Config(
            new_app(service),
            lifespan="off",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            http=JsonErrorProtocol,
            ws="none",
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_graceful_shutdown=_GRACE_S,
        )
        server = _Server(config)
        # 2. From here on a signal ends the server.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, setattr, server, "should_exit", True)
        # 3. Create missing topics, follow them, and answer until a signal or a failure of the service.
        await asyncio.to_thread(prepare_topics, settings)
        await service.start()
        service.failed.add_done_callback(lambda _: setattr(server, "should_exit", True))
        try:
            log.info("serving on %s", url)
            on_start(url)
            await server.serve(sockets=[listening])
            if service.failed.done():
                service.failed.result()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            await service.stop()
