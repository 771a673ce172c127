"""What callers are told of the moment. Times are ms since 1970; null is what is not known."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of durations, ms."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class HttpNow:
    """What this server has answered in the last interval; streams do not count."""

    requests_per_s: float
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class LiveRanks:
    """Means over events that were ranked before they were applied, mode "all"."""

    events: int
    users: int | None
    """null: workers do not tell of whom the events were"""
    recall_at_20: float
    mrr_at_20: float


@dataclass(frozen=True, slots=True)
class PopularityRanks:
    """The same of decayed popularity, on the same events."""

    recall_at_20: float
    mrr_at_20: float


@dataclass(frozen=True, slots=True)
class VersionNow:
    """A version that is live, or whose rows have not all moved to a newer one yet."""

    version: str
    epoch: int
    share: float
    """of the users, 0 … 1, by the newest announcement"""
    live: bool
    """whether the newest announcement names it"""
    rows: int
    prequential: LiveRanks | None
    """of the last five minutes"""
    popularity: PopularityRanks | None


WorkerState = Literal["restoring", "running", "swapping", "gone"]


@dataclass(frozen=True, slots=True)
class WorkerNow:
    """A worker, as it told last."""

    worker: str
    partitions: list[int]
    state: WorkerState
    """swapping: rows of older epochs move to the live version; gone: nothing was heard for ten seconds"""
    progress: float | None
    """of a restore or a swap, 0 … 1"""
    events_per_s: float | None
    """null until it has told twice"""
    lag: int
    epoch: int
    rows: int
    rows_of_older_epochs: int
    seen_ms_ago: int


@dataclass(frozen=True, slots=True)
class Attention:
    """Something that somebody should look at."""

    severity: Literal["info", "warning", "problem"]
    text: str
    """a sentence that says what to do"""


@dataclass(frozen=True, slots=True)
class Now:
    """The installation, as this server sees it."""

    time: int
    events_per_s: float
    """events applied by all workers"""
    lag: int | None
    """records of `events` that are left to apply, of the partitions that workers have"""
    freshness_ms: Percentiles | None
    """from a record's append to `events` until its row is durable, in the last interval"""
    dead_letters_per_s: float
    dead_letters: int
    """that the topic holds"""
    rows: int
    items: int
    stream_time: int
    """the stream's now; -1 before the first event"""
    http: HttpNow | None
    versions: list[VersionNow]
    workers: list[WorkerNow]
    partitions: int
    partitions_without_worker: list[int]
    attention: list[Attention]


@dataclass(frozen=True, slots=True)
class History:
    """What `/v1/live` said lately, oldest first."""

    interval_ms: int
    points: list[Now]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used. Bytes are told as text, with � for what is none, and cut."""

    time: int
    topic: str
    partition: int
    offset: int
    reason: str
    key: str | None
    value: str


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The newest dead letters first."""

    total: int
    """that the topic holds"""
    by_reason: dict[str, int] = field(default_factory=dict)
    """how many of those that this server has read"""
    samples: list[DeadLetter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ActiveUser:
    """Somebody whose row changed lately."""

    user_id: str
    last_event: int
    events: int
    """since the user was first seen"""


@dataclass(frozen=True, slots=True)
class ActiveUsers:
    """Users by their last event, newest first."""

    users: list[ActiveUser]
