"""What a worker tells about itself, in Prometheus' terms."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from eddy.stream.worker.freshness import Freshness


class WorkerMetrics:
    """One worker's metrics on a registry of its own, so that several live in one process (tests)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.read = Counter("eddy_events_read", "Records read from events, bad ones included", registry=r)
        self.applied = Counter("eddy_events_applied", "Events that moved their user's state", registry=r)
        self.replayed = Counter(
            "eddy_events_replayed", "Records read again that a row already included", registry=r
        )
        self.repeats = Counter("eddy_events_repeated", "Re-sent events, recognised by event_id", registry=r)
        self.ignored = Counter("eddy_events_ignored", "Events whose type does not move states", registry=r)
        self.erased = Counter("eddy_users_erased", "Users forgotten by a tombstone", registry=r)
        self.idle = Counter("eddy_rows_idle_dropped", "Rows dropped because nobody touched them", registry=r)
        self.late = Counter("eddy_events_late", "Late events put in their place", registry=r)
        self.too_late = Counter(
            "eddy_events_too_late", "Events older than the anchor, applied on arrival", registry=r
        )
        self.dead = Counter("eddy_dead_letters", "Records sent to dead-letters", registry=r)
        self.answers = Counter("eddy_recommendations", "Recommendation lists sent", registry=r)
        self.checkpoint_seconds = Histogram("eddy_checkpoint_seconds", "Duration of checkpoints", registry=r)
        self.batch_events = Histogram(
            "eddy_batch_events", "Records per micro-batch", registry=r, buckets=[2.0**i for i in range(15)]
        )
        self.unanswered = Gauge(
            "eddy_unanswered_batches", "Micro-batches whose lists or ranks are still being made", registry=r
        )
        self.rows = Gauge("eddy_rows", "Users held in memory", registry=r)
        self.items = Gauge("eddy_items", "Items in the catalogue", registry=r)
        self.stale_rows = Gauge(
            "eddy_rows_of_older_epochs", "Rows still to be encoded for the live version", registry=r
        )
        self.epoch = Gauge("eddy_epoch", "Epoch of the live model version", registry=r)
        self.awaited_epoch = Gauge(
            "eddy_epoch_awaited", "Epoch of rows that wait for a version not loaded here, 0: none", registry=r
        )
        self.ready = Gauge("eddy_ready", "1 when all owned partitions are restored", registry=r)
        self.stalled = Gauge(
            "eddy_stalled_seconds", "Time without progress although there is more", registry=r
        )
        self.restored = Gauge("eddy_restored_rows", "Rows read while restoring", ["partition"], registry=r)
        self.restore_progress = Gauge(
            "eddy_restore_progress", "Share of the changelog read while restoring", ["partition"], registry=r
        )
        self.lag = Gauge(
            "eddy_lag", "Records of events left to apply; 0 where none can be read", ["partition"], registry=r
        )
        self.gone = Counter(
            "eddy_events_gone", "Records that retention had removed before they were read", registry=r
        )
        self.freshness = Freshness()
        r.register(self.freshness)
        self.prequential = Gauge(
            "eddy_prequential",
            "Prequential metrics, mode all, of the rows of each model version",
            ["metric", "version"],
            registry=r,
        )
        self.prequential_sample = Gauge(
            "eddy_prequential_sample",
            "Share of users whose events are ranked now: EDDY_PREQUENTIAL_SAMPLE, or what the time allows",
            registry=r,
        )

    def drop_partition(self, partition: int) -> None:
        """A revoked partition's figures disappear, so that sums over workers stay right."""
        for gauge in (self.restored, self.restore_progress, self.lag):
            if (str(partition),) in gauge._metrics:
                gauge.remove(str(partition))
