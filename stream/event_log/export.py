"""`eddy export`: from `events` into the event log, to its end or for as long as the process runs.

Several processes share the partitions of the topic among them (`Share`); each has its own buckets of the log,
and they need not know of each other.
"""

import logging
import time
from dataclasses import replace
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.errors import KafkaError

from eddy.models.errors import EddyError
from eddy.models.storage import Place
from eddy.stream.event_log.log import EventLog, opened
from eddy.stream.kafka.clients import admin_client, new_consumer
from eddy.stream.kafka.security.granted import require_permissions
from eddy.stream.kafka.topic_watch import NotTheSame, TopicWatch
from eddy.stream.kafka.topics import topic_ids
from eddy.stream.records.admission import Admission
from eddy.stream.records.decode import Record
from eddy.stream.records.partitioner import OtherPartitioner
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.event_log")

PART_RECORDS, PART_BYTES = 200_000, 256 << 20
"""So many records, or so many bytes of them, are kept in memory before they become files. So many plain
events take about 100 MB, but each may have up to a megabyte of context.
"""

FORGET_WITHIN_MS = 120_000
"""An export that follows without an end removes an erased user's events within this time, unless rewriting
the files that hold them would take more than FORGET_SHARE of its time.
"""

FORGET_SHARE = 0.1
MERGE_SHARE = 0.2
"""Small parts are merged for at most this share of the time; an export that ends may take _MERGE_AT_END_S
more.
"""

_MERGE_AT_END_S = 10.0
_POLL_MS = 500
_FLUSH_MS = FORGET_WITHIN_MS // 2
"""An export that follows without an end writes a part at least this often."""


class Share(NamedTuple):
    """Every `of`-th partition, from number - 1 on: 1/4, 2/4, 3/4 and 4/4 are all of them."""

    number: int
    of: int

    def includes(self, partition: int) -> bool:
        """Whether a partition belongs to it."""
        return partition % self.of == self.number - 1


ALL = Share(1, 1)


class _Waiting:
    """Records that were read and are not written yet, by partition."""

    def __init__(self) -> None:
        self._records: dict[int, list[Record]] = {}
        self.count = self._bytes = 0
        self._taken_at = time.monotonic()

    def add(self, partition: int, records: list[Record]) -> None:
        """Add records of a partition, in offset order."""
        self._records.setdefault(partition, []).extend(records)
        self.count += len(records)
        self._bytes += sum(len(record.value or b"") for record in records)

    @property
    def is_enough(self) -> bool:
        """Whether there are as many as may be in memory."""
        return self.count >= PART_RECORDS or self._bytes >= PART_BYTES

    @property
    def is_old(self) -> bool:
        """Whether it is a while since they were taken. (Not by the wall clock, which may be set back.)"""
        return time.monotonic() - self._taken_at >= _FLUSH_MS / 1000

    def take(self) -> dict[int, list[Record]]:
        """All of them, which do not wait any more."""
        taken, self._records = self._records, {}
        self.count = self._bytes = 0
        self._taken_at = time.monotonic()
        return taken


class _Pace:
    """Lets work be done for a share of the time: after each piece it is not due for as long as that takes."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._from = self._began = 0.0  # at once: an earlier export may have ended with work to do

    def is_due(self) -> bool:
        """Whether another piece may begin; it begins now if so."""
        self._began = time.monotonic()
        return self._began >= self._from

    def done(self) -> None:
        """The piece has ended."""
        now = time.monotonic()
        self._from = now + (now - self._began) / self._share


def export(settings: Settings, place: Place, until_end: bool = True, share: Share = ALL) -> int:
    """Bring the share's buckets of the log there up to the topic's end as of now, or follow the topic for
    ever.

    Returns how many events were added. Errors: EddyError when the cluster cannot be reached or read, when
    there is no partition for this share, and as `opened`.
    """
    topic = settings.topics.events
    with admin_client(settings) as admin:
        require_permissions(admin, settings, "export")
        ids = topic_ids(admin, [topic])
    watch = TopicWatch(settings, ids)
    # As the workers do: what a transactional producer aborted never happened.
    consumer = new_consumer(
        settings,
        enable_auto_commit=False,
        group_id=None,
        auto_offset_reset="earliest",  # when retention overtakes us: the default skips all that is left
        isolation_level="read_committed",
    )
    try:
        partitions = sorted(consumer.partitions_for_topic(topic) or ())
        mine = [number for number in partitions if share.includes(number)]
        if not mine:
            raise EddyError(
                f"share {share.number}/{share.of}: {topic} has {len(partitions)} partitions, and none of "
                "them is in this share; start fewer exports"
            )
        # The topic's own number of partitions counts, whatever this process was told.
        admission = replace(settings.admission, partitions=len(partitions))
        with opened(place, topic, str(ids[topic]), mine) as event_log:
            return _export(consumer, watch, topic, event_log, until_end, admission, settings.event_log_days)
    except NotTheSame:
        raise EddyError(
            f"topic {topic} was deleted or made again (by `eddy repartition`, say) while it was exported; "
            "what it holds now goes to a new folder"
        ) from None
    except KafkaError as error:
        raise EddyError(f"topic {topic} cannot be read: {type(error).__name__}: {error}") from None
    finally:
        consumer.close()
        watch.close()


def _export(
    consumer: Any,
    watch: TopicWatch,
    topic: str,
    event_log: EventLog,
    until_end: bool,
    admission: Admission,
    keep_days: float | None,
) -> int:
    other_partitioner = OtherPartitioner(admission.partitions, admission.partitioner)
    tps = [TopicPartition(topic, number) for number in sorted(event_log.buckets)]
    end = _seek(consumer, tps, event_log)
    added, began = 0, time.monotonic()
    forgetting, merging, may_merge = _Pace(FORGET_SHARE), _Pace(MERGE_SHARE), True
    waiting = _Waiting()
    while True:
        # 1. Write parts when there is enough for them, or it is time, or all is read.
        done = until_end and all(consumer.position(tp) >= end[tp] for tp in tps)
        if waiting.is_enough or (waiting.count and done) or (waiting.is_old and not until_end):
            watch.look()  # the consumer reads on in a topic that was made again
            taken = waiting.take()
            for number, records in taken.items():
                if reason := other_partitioner.recognised([record.key or b"" for record in records], number):
                    raise EddyError(f"topic {topic}: {reason}; nothing was exported")
            added += event_log.append(taken, admission)
            may_merge = True
            if keep_days is not None and (dropped := event_log.drop_days(keep_days)):
                log.info("days that left the log: %s", ", ".join(dropped))
            event_log.tidy()
        # 2. The end: forget erased users, and leave few files.
        if done:
            event_log.forget()
            merge_until = time.monotonic() + max(_MERGE_AT_END_S, MERGE_SHARE * (time.monotonic() - began))
            while time.monotonic() < merge_until and event_log.merge_once():
                pass
            event_log.tidy()
            return added
        # 3. Now and then, for a share of the time, the same.
        if event_log.has_erasures and forgetting.is_due():
            log.info("%d events of erased users removed", event_log.forget())
            forgetting.done()
        if may_merge and merging.is_due():
            may_merge = event_log.merge_once() > 0
            merging.done()
        # 4. Read on.
        for tp, records in consumer.poll(timeout_ms=_POLL_MS, max_records=10_000).items():
            waiting.add(tp.partition, records)


def _seek(consumer: Any, tps: list[TopicPartition], event_log: EventLog) -> dict[TopicPartition, int]:
    """Let the consumer begin where the log ends; returns the topic's end offsets as of now."""
    consumer.assign(tps)
    beginning = consumer.beginning_offsets(tps)
    end: dict[TopicPartition, int] = consumer.end_offsets(tps)
    for tp in tps:
        at = event_log.next_offset(tp.partition)
        if at < beginning[tp]:
            log.warning(
                "%s partition %d: offsets %d to %d were gone (retention) before they were exported",
                tp.topic, tp.partition, at, beginning[tp] - 1,
            )  # fmt: skip
        consumer.seek(tp, max(at, beginning[tp]))
    return end
