"""What a worker answers over HTTP: its metrics, and to probes whether it is alive and whether it is ready."""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app, start_http_server

from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.worker")

PATIENCE_S = 10.0

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve_metrics(settings: Settings, port: int, registry: CollectorRegistry) -> int:
    """Serve a worker's metrics, with those of its process (memory, processor time, open files), and the paths
    of `with_probes`; returns the port that was taken.

    Errors: EddyError when the address cannot be had.
    """
    try:
        server, _ = start_http_server(port, settings.host, registry)
    except OSError as error:
        raise EddyError(
            f"metrics cannot be served at {settings.host}:{port} ({error}): choose another EDDY_METRICS_PORT "
            "(0: any free one) or EDDY_HOST"
        ) from None
    ProcessCollector(registry=registry)
    server.RequestHandlerClass = _patient_for_a_while(cast(Any, server.RequestHandlerClass))
    server.set_app(with_probes(make_wsgi_app(registry), registry))
    log.info("metrics: http://%s:%d/metrics", settings.host, server.server_port)
    return server.server_port


def _patient_for_a_while(handler: type[Any]) -> type[Any]:
    """A class of request handlers that gives a client up that sends or takes nothing for PATIENCE_S, or is
    gone. Each client has a thread, which one that says nothing would keep for ever.
    """

    class Patient(handler):  # type: ignore[misc]
        timeout = PATIENCE_S

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

    return Patient


def with_probes(metrics: WsgiApp, registry: CollectorRegistry) -> WsgiApp:
    """The app `metrics`, and beside it `/healthz` (200: the process answers) and `/readyz` (200 when all
    owned partitions are restored, as `eddy_ready` says; 503 until then).
    """

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def answer(status: str, text: str) -> list[bytes]:
            start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
            return [text.encode()]

        path = environ["PATH_INFO"]
        if path == "/healthz":
            return answer("200 OK", "alive\n")
        if path == "/readyz":
            if registry.get_sample_value("eddy_ready") == 1:
                return answer("200 OK", "ready\n")
            return answer("503 Service Unavailable", "not ready\n")
        return metrics(environ, start_response)

    return app
