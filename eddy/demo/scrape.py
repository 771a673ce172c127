"""What the demo reads over HTTP: the worker's metrics, and lists from the server."""

from collections.abc import Mapping, Sequence

import httpx
from prometheus_client.parser import text_string_to_metric_families

from eddy.demo.board import Board

QUALITY = "eddy_prequential"


class Scraper:
    """Keeps a board up to date; the monitor calls each method once per beat."""

    def __init__(self, client: httpx.AsyncClient, metrics_url: str, board: Board) -> None:
        self._client = client
        self._metrics_url = metrics_url
        self._board = board
        self._before: dict[str, float] = {}
        self._of_version: dict[str, dict[str, float]] = {}
        """the last figures of each version: a worker tells of those in use only"""
        self.quality: dict[str, float] = {}
        self.ready = False
        self.counting = False

    async def worker(self) -> None:
        """Read the worker's metrics; nothing happens while its endpoint does not answer yet."""
        try:
            text = (await self._client.get(self._metrics_url)).text
        except httpx.TransportError:
            return
        total: dict[str, float] = {}
        by_version: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == QUALITY:
                    of_version = by_version.setdefault(sample.labels["version"], {})
                    of_version[sample.labels["metric"]] = sample.value
                else:
                    total[sample.name] = total.get(sample.name, 0.0) + sample.value
        self._of_version |= by_version
        self.quality = over_versions(list(self._of_version.values()))
        board = self._board
        board.take_applied(int(total.get("eddy_events_applied_total", 0)))
        board.lag = int(total.get("eddy_lag", 0))
        board.unanswered = int(total.get("eddy_unanswered_batches", 0))
        board.epoch = int(total.get("eddy_epoch", 0))
        board.stale_rows = int(total.get("eddy_rows_of_older_epochs", 0))
        self.ready = total.get("eddy_ready", 0) == 1
        if self.counting:
            board.quality = self.since()

    def count_quality_from_here(self) -> None:
        """Leave out of the quality figures the events so far, on which the model was trained."""
        self._before = dict(self.quality)
        self.counting = True

    def since(self) -> dict[str, float]:
        """Means over the events that count, taken out of the worker's means, which run from its start."""
        events, before = self.quality.get("events", 0), self._before.get("events", 0)
        if events <= before:
            return {}
        means = {
            name: (value * events - self._before.get(name, 0.0) * before) / (events - before)
            for name, value in self.quality.items()
            if name != "events"
        }
        return {**means, "events": events - before}

    async def ask(self, url: str) -> None:
        """Ask the server for a list, as its users would, and count the answer."""
        try:
            answered = (await self._client.get(url)).status_code == httpx.codes.OK
        except httpx.TransportError:
            answered = False
        self._board.http_answers += 1
        self._board.http_failures += not answered

    async def answers(self, url: str) -> bool:
        """Whether a URL answers 200."""
        try:
            return (await self._client.get(url)).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


def over_versions(qualities: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The means over the events of all versions, out of the figures of each; empty without any event."""
    events = sum(quality["events"] for quality in qualities)
    if not events:
        return {}
    names = qualities[0].keys() - {"events"}
    weighted = {
        name: sum(quality[name] * quality["events"] for quality in qualities) / events for name in names
    }
    return {**weighted, "events": events}
