"""What a worker tells about itself, in Prometheus' terms."""

from collections.abc import Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from eddy.stream.worker.freshness import Freshness


class WorkerMetrics:
    """One worker's metrics on a registry of its own, so that several live in one process (tests)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.read = counter("eddy_events_read", "Records read from events, bad ones included")
        self.applied = counter("eddy_events_applied", "Events that moved their user's state")
        self.replayed = counter("eddy_events_replayed", "Records read again that a row already included")
        self.repeats = counter("eddy_events_repeated", "Re-sent events, recognised by event_id")
        self.ignored = counter("eddy_events_ignored", "Events whose type does not move states")
        self.erased = counter("eddy_users_erased", "Users forgotten by a tombstone")
        self.idle = counter("eddy_rows_idle_dropped", "Rows dropped because nobody touched them")
        self.late = counter("eddy_events_late", "Late events put in their place")
        self.too_late = counter("eddy_events_too_late", "Events older than the anchor, applied on arrival")
        self.dead = counter("eddy_dead_letters", "Records sent to dead-letters")
        self.answers = counter("eddy_recommendations", "Recommendation lists sent")
        self.checkpoint_seconds = histogram("eddy_checkpoint_seconds", "Duration of checkpoints")
        self.batch_events = histogram(
            "eddy_batch_events", "Records per micro-batch", buckets=[2.0**i for i in range(15)]
        )
        self.unanswered = gauge(
            "eddy_unanswered_batches", "Micro-batches whose lists or ranks are still being made"
        )
        self.rows = gauge("eddy_rows", "Users held in memory")
        self.items = gauge("eddy_items", "Items in the catalogue")
        self.stale_rows = gauge("eddy_rows_of_older_epochs", "Rows still to be encoded for the live version")
        self.epoch = gauge("eddy_epoch", "Epoch of the live model version")
        self.awaited_epoch = gauge(
            "eddy_epoch_awaited", "Epoch of rows that wait for a version not loaded here, 0: none"
        )
        self.ready = gauge("eddy_ready", "1 when all owned partitions are restored")
        self.stalled = gauge("eddy_stalled_seconds", "Time without progress although there is more")
        self.restored = gauge("eddy_restored_rows", "Rows read while restoring", ["partition"])
        self.restore_progress = gauge(
            "eddy_restore_progress", "Share of the changelog read while restoring", ["partition"]
        )
        self.lag = gauge(
            "eddy_lag", "Records of events left to apply; 0 where none can be read", ["partition"]
        )
        self.gone = counter("eddy_events_gone", "Records that retention had removed before they were read")
        self.freshness = Freshness()
        self.registry.register(self.freshness)
        self.prequential = gauge(
            "eddy_prequential",
            "Prequential metrics, mode all, of the rows of each model version",
            ["metric", "version"],
        )
        self.prequential_sample = gauge(
            "eddy_prequential_sample",
            "Share of users whose events are ranked now: EDDY_PREQUENTIAL_SAMPLE, or what the time allows",
        )

    def show_prequential(self, by_version: Mapping[str, Mapping[str, float]]) -> None:
        """Show the prequential metrics of these versions, and of no others."""
        for name, version in list(self.prequential._metrics):
            if version not in by_version:
                self.prequential.remove(name, version)
        for version, means in by_version.items():
            for name, value in means.items():
                self.prequential.labels(name, version).set(value)

    def drop_partition(self, partition: int) -> None:
        """A revoked partition's figures disappear, so that sums over workers stay right."""
        for gauge in (self.restored, self.restore_progress, self.lag):
            if (str(partition),) in gauge._metrics:
                gauge.remove(str(partition))
