"""A server's metrics for Prometheus."""

from collections import deque
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MAX_RECENT = 20_000
"""Requests whose durations are kept for a while, at most."""

_AGES = (1, 10, 60, 600, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400)

_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)


class ServerMetrics:
    """One server's metrics, on a registry of its own so that tests can run several servers in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.of_all_processes: Callable[[], Awaitable[bytes]] | None = None
        """gathers the metrics of all processes that share the port, where there are several"""
        r = self.registry
        self.requests = Counter(
            "eddy_requests", "Answered questions by outcome: known, unknown", ["outcome"], registry=r
        )
        self.seconds = Histogram(
            "eddy_request_seconds", "From a question to its answer", registry=r, buckets=_SECONDS
        )
        self.batch = Histogram(
            "eddy_request_batch", "Questions scored together", registry=r, buckets=[2.0**i for i in range(7)]
        )
        self.posted = Counter(
            "eddy_events_posted",
            "Events posted here by outcome: accepted, refused, unacknowledged (by Kafka)",
            ["outcome"],
            registry=r,
        )
        self.http_requests = Counter(
            "eddy_http_requests",
            "Requests by route as declared, method and status (0: the connection ended first)",
            ["route", "method", "status"],
            registry=r,
        )
        self.http_seconds = Histogram(
            "eddy_http_seconds",
            "From a request's headers to the end of its answer, by route",
            ["route"],
            registry=r,
            buckets=_SECONDS,
        )
        self.recent_seconds: deque[float] = deque(maxlen=MAX_RECENT)
        """how long the last requests took, until somebody takes them"""
        self.state_age = Histogram(
            "eddy_state_age_seconds",
            "Age of the hidden state at an answer: from the user's last event until the stream's now",
            registry=r,
            buckets=_AGES,
        )
        self.followed_lag = Gauge(
            "eddy_followed_lag",
            "Offsets between what the server has followed and the topic's end",
            ["topic"],
            registry=r,
        )
        self.version_rows = Gauge(
            "eddy_version_rows", "Users held in memory by the version of their row", ["version", "epoch"],
            registry=r,
        )  # fmt: skip
        self.versions_loaded = Gauge(
            "eddy_versions_loaded", "Model versions, each at an epoch, that are loaded", registry=r
        )
        self.streams = Gauge("eddy_http_streams", "Streams of events that are open", registry=r)
        self.rows = Gauge("eddy_rows", "Users held in memory", registry=r)
        self.epoch = Gauge("eddy_epoch", "Greatest epoch whose model is loaded", registry=r)
        self.ready = Gauge(
            "eddy_ready", "1 when every topic was read to its end and a model is there", registry=r
        )
        self.behind = Histogram(
            "eddy_followed_seconds",
            "From a record's append time until it is part of the view, once the topic was read to its end",
            ["topic"],
            registry=r,
            buckets=_SECONDS,
        )
        self.unreadable = Counter(
            "eddy_unreadable", "Followed records that could not be read", ["topic"], registry=r
        )

    async def text(self) -> bytes:
        """The metrics as Prometheus reads them."""
        if self.of_all_processes is not None:
            return await self.of_all_processes()
        return generate_latest(self.registry)
