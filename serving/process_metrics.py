"""Metrics of several server processes that share a port.

A scrape reaches any one of them. Each offers its own metrics on a Unix socket in a folder that all know; the
one that is asked gathers all, and tells them apart by the label `process`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

_PATIENCE_S = 2.0
"""A process that has not told its metrics after so long is left out of this scrape."""


class ProcessMetrics:
    """The metrics of one process among several."""

    def __init__(self, folder: Path, number: int) -> None:
        """folder: where each process has its socket; number: of this process."""
        self._folder = folder
        self._number = number
        self._server: asyncio.Server | None = None

    async def publish(self, registry: CollectorRegistry) -> Callable[[], Awaitable[bytes]]:
        """Offer a registry's metrics to the other processes; returns what gathers those of all."""

        async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(generate_latest(registry))
            writer.close()

        path = self._folder / f"{self._number}.sock"
        path.unlink(missing_ok=True)  # of a process with this number that was killed
        self._server = await asyncio.start_unix_server(tell, path)
        return self._gather

    async def _gather(self) -> bytes:
        paths = sorted(self._folder.glob("*.sock"))
        texts = await asyncio.gather(*map(_read, paths))
        return generate_latest(_Together({path.stem: text for path, text in zip(paths, texts, strict=True)}))


class _Together(CollectorRegistry):
    """What several processes tell, as one registry."""

    def __init__(self, texts: dict[str, str]) -> None:
        super().__init__()
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        """Each metric once, with the samples of all processes."""
        together: dict[str, Metric] = {}
        for process, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                metric = together.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "process": process}
                    metric.add_sample(sample.name, labels, sample.value)
        yield from together.values()


async def _read(path: Path) -> str:
    """What a process tells; nothing when it does not answer, as while it starts again."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return (await reader.read()).decode()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return ""
