"""Where the lists of a run over many users go, so that a killed run goes on where it stopped.

Users are dealt to buckets by a hash of their ids. A bucket that is written has an entry in the run's folder,
there whole or not at all. What another run left in the folder is removed, and so is what a run left that
nobody went on with for LEFT_S: tomorrow's lists are none of last night's.

    lock                 held while a run writes
    job.json             what was asked for, and into how many buckets users are dealt
    bucket-00.parquet    lists on their way to a file: when all buckets are there, they are joined
    bucket-00.sent       lists that a topic has confirmed
"""

import asyncio
import json
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import AIOKafkaProducer

from eddy.models.atomic_files import atomic_write
from eddy.models.hashing import item_hashes
from eddy.models.locks import locked_at_once
from eddy.serving.bulk.columns import SCHEMA
from eddy.stream.kafka.producers import send_all
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.schema import encode

MOST_BUCKETS = 64
USERS_PER_BUCKET = 1 << 14
"""About as many as a bucket has, unless that would make more than MOST_BUCKETS: what a kill wastes."""

LEFT_S = 3_600.0
"""A killed run is gone on with for so long after the last thing that it wrote."""

_LOCK = "lock"


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

    def held(self) -> AbstractContextManager[None]:
        """Keep other runs that write there out. Errors: EddyError when there is one."""

    def begin(self, users: int) -> Progress:
        """Take up what a killed run left, whose number of buckets holds even if there are more users now; or
        begin with so many users.
        """

    def is_of(self, bucket: int, users: Collection[str], known: Collection[str]) -> bool:
        """Whether a bucket that is done can stay: whether it is of these users.

        known: users with rows, now. Somebody may have been erased since, or have come.
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

    @contextmanager
    def held(self) -> Iterator[None]:
        """See `Target`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        refusal = f"{self.folder}: another run writes its lists there; wait for it, or stop it"
        with locked_at_once(self.folder / _LOCK, refusal):
            yield

    def begin(self, users: int) -> Progress:
        """See `Target`."""
        file = self.folder / "job.json"
        job = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if job.get("asked") != self._asked or self._is_old():
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self._left():
                left.unlink()
            job = {"asked": self._asked, "buckets": buckets_for(users)}
            with atomic_write(file) as draft:
                draft.write_text(json.dumps(job), encoding="utf-8")
        self._buckets = int(job["buckets"])
        return Progress(self._buckets, {n for n in range(self._buckets) if self.bucket(n).is_file()})

    def _left(self) -> list[Path]:
        return [file for file in self.folder.iterdir() if file.name != _LOCK]

    def _is_old(self) -> bool:
        """Also where the clock was put back, so that it is not known."""
        last_s = max(file.stat().st_mtime for file in self._left())
        return not 0 <= time.time() - last_s <= LEFT_S

    def bucket(self, number: int) -> Path:
        """The entry of a bucket."""
        return self.folder / f"bucket-{number:02d}.{self._suffix}"


class ToFile(_Resumable):
    """Lists in one Parquet file, which is there when all of them are."""

    def __init__(self, out: Path, asked: dict[str, Any]) -> None:
        super().__init__(out.with_name(f".{out.name}.parts"), asked, "parquet")
        self._out = out

    def is_of(self, bucket: int, users: Collection[str], known: Collection[str]) -> bool:
        """See `Target`."""
        table = pq.read_table(self.bucket(bucket), columns=["user_id", "known"])
        listed = dict(zip(table["user_id"].to_pylist(), table["known"].to_pylist(), strict=True))
        return listed == {user: user in known for user in users}

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

    def is_of(self, bucket: int, users: Collection[str], known: Collection[str]) -> bool:
        """See `Target`: what was sent was sent."""
        return True

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
