"""Where the lists of a run over many users go, so that a killed run goes on where it stopped.

Users are dealt to buckets by a hash of their ids. A bucket that is written has an entry in the run's folder,
there whole or not at all; what another run left in the folder is removed.

    job.json             what was asked for, and into how many buckets users are dealt
    bucket-00.parquet    lists on their way to a file: when all buckets are there, they are joined
    bucket-00.sent       lists that a topic has confirmed
"""

import asyncio
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import AIOKafkaProducer

from eddy.models.atomic_files import atomic_write
from eddy.models.hashing import item_hashes
from eddy.serving.bulk.columns import SCHEMA
from eddy.stream.kafka.producers import send_all
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.schema import encode

MOST_BUCKETS = 64
USERS_PER_BUCKET = 1 << 14
"""About as many as a bucket has, unless that would make more than MOST_BUCKETS: what a kill wastes."""


def buckets_for(users: int) -> int:
    """Into how many buckets so many users are dealt."""
    return min(1 + users // USERS_PER_BUCKET, MOST_BUCKETS)


def deal(users: Sequence[str], buckets: int) -> list[list[str]]:
    """The users of each bucket."""
    dealt: list[list[str]] = [[] for _ in range(buckets)]
    for user, number in zip(users, (item_hashes(users) % buckets).tolist(), strict=True):
        dealt[number].append(user)
    return dealt


class Progress(NamedTuple):
    """How far a run has come."""

    buckets: int
    done: set[int]


class Target(Protocol):
    """Where lists go. Methods raise OSError, or what the producer raises."""

    def begin(self, users: int) -> Progress:
        """Take up what a killed run left, whose number of buckets holds even if there are more users now; or
        begin with so many users.
        """

    async def put(self, bucket: int, lists: pa.Table) -> None:
        """Write the lists of a bucket."""

    def finish(self) -> None:
        """All buckets are written."""


class _Resumable:
    """A target with a folder that says which buckets are done."""

    def __init__(self, folder: Path, asked: dict[str, Any], suffix: str) -> None:
        self.folder, self._suffix = folder, suffix
        self._asked = json.loads(json.dumps(asked))  # as the folder's file gives it back
        self._buckets = 0

    def begin(self, users: int) -> Progress:
        """See `Target`."""
        file = self.folder / "job.json"
        job = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if job.get("asked") != self._asked:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            job = {"asked": self._asked, "buckets": buckets_for(users)}
            with atomic_write(file) as draft:
                draft.write_text(json.dumps(job), encoding="utf-8")
        self._buckets = int(job["buckets"])
        return Progress(self._buckets, {n for n in range(self._buckets) if self.bucket(n).is_file()})

    def bucket(self, number: int) -> Path:
        """The entry of a bucket."""
        return self.folder / f"bucket-{number:02d}.{self._suffix}"


class ToFile(_Resumable):
    """Lists in one Parquet file, which is there when all of them are."""

    def __init__(self, out: Path, asked: dict[str, Any]) -> None:
        super().__init__(out.with_name(f".{out.name}.parts"), asked, "parquet")
        self._out = out

    async def put(self, bucket: int, lists: pa.Table) -> None:
        """See `Target`."""

        def write() -> None:
            with atomic_write(self.bucket(bucket)) as draft:
                pq.write_table(lists, draft)

        await asyncio.to_thread(write)

    def finish(self) -> None:
        """Join the buckets, a row group at a time."""
        with atomic_write(self._out) as draft, pq.ParquetWriter(draft, SCHEMA) as writer:
            for number in range(self._buckets):
                with pq.ParquetFile(self.bucket(number)) as part:
                    for group in range(part.num_row_groups):
                        writer.write_table(part.read_row_group(group))
        shutil.rmtree(self.folder)


class ToTopic(_Resumable):
    """Lists as JSON on a topic, keyed by user. A bucket that was under way when a run was killed is sent
    again.
    """

    def __init__(
        self, producer: AIOKafkaProducer, topic: str, partitions: int, folder: Path, asked: dict[str, Any]
    ) -> None:
        super().__init__(folder, asked, "sent")
        self._producer, self._topic, self._partitions = producer, topic, partitions

    async def put(self, bucket: int, lists: pa.Table) -> None:
        """See `Target`; returns when the topic has confirmed them."""
        users = [user.encode() for user in lists["user_id"].to_pylist()]
        target = partition_of(users, self._partitions, "murmur2")
        times = lists["stream_time"].cast(pa.int64())
        values = lists.set_column(lists.schema.get_field_index("stream_time"), "stream_time", times)
        messages: dict[int, list[tuple[bytes, bytes]]] = {}
        for user, partition, value in zip(users, target.tolist(), values.to_pylist(), strict=True):
            messages.setdefault(partition, []).append((user, encode(value)))
        confirmed = []
        for partition, of_partition in messages.items():
            confirmed += await send_all(self._producer, self._topic, partition, of_partition)
        await asyncio.gather(*confirmed)
        with atomic_write(self.bucket(bucket)) as draft:
            draft.touch()

    def finish(self) -> None:
        """See `Target`."""
        with suppress(OSError):
            shutil.rmtree(self.folder)
