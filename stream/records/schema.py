"""The messages on Eddy's topics, in one place. JSON; ids are strings; times are ms since 1970 in event
time.

| topic | key | value |
| --- | --- | --- |
| events | user_id | Event, or a tombstone (no value), which erases the user |
| items | item_id | Item, written by whoever owns the catalogue, or a tombstone |
| items | 0x00 + hash | WithdrawableEntry, written by workers |
| items | 0x00 + "rules" | business rules, which servers read: `eddy.serving.catalogue.rules` |
| recommendations | user_id | Recommendation |
| user-state | user_id | a binary row, see eddy.stream.state.rows, or a tombstone: erased |
| item-stats | partition/part | binary arrays, see eddy.stream.state.item_statistics |
| model-versions | "live" and "epoch-N" | Announcement |
| metrics | instance:interval of a worker | IntervalRanks |
| metrics | "worker:" + its name | WorkerReport (`eddy.stream.records.worker_reports`) |
| dead-letters | topic:partition:offset | the original bytes; the headers tell the rest |

A record of `events` lies in the partition that `eddy.stream.records.partitioner` gives its key. Every field
of an Item (texts, numbers, lists of them) but `available` is a feature, by which a new item is scored
(`eddy.models.logs.item_features`). `"available": false`, or a tombstone, withdraws the item from all lists. A
worker's entry on `items` gives the name of a hash, for the rows that hold it, and lets a withdrawal outlive
its tombstone. The headers of a dead letter are those of `eddy.stream.records.dead_letters`.
"""

from typing import Annotated, Any, Literal

import msgspec

from eddy.models.event_limits import MAX_ID, MAX_TYPE
from eddy.models.logs.events import DEFAULT_TYPE

MAX_INT64 = (1 << 63) - 1
"""Without it a number of any length would be a timestamp."""

MAX_EPOCH = (1 << 32) - 1
"""What a row has room for."""

DICTIONARY_KEY = b"\0"
"""First byte of a dictionary record's key on `items`; keys of metadata are item ids."""

GROUPS = 32
"""Live ranks are counted in so many groups of users: enough for the variance between them to be known, and
few enough for records of a kilobyte.
"""

MAX_RANKED = 16
"""Versions, each at an epoch, whose ranks one record of `metrics` counts."""

RULES_KEY = DICTIONARY_KEY + b"rules"
"""Key of the business rules on `items`, which no item and no hash has."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]


class Event(msgspec.Struct, gc=False):
    """One user-item interaction, as `eddy.models.event_limits` says; `eddy.stream.records.decode` checks what
    types cannot. Unknown fields (such as `context`) are left alone.
    """

    user_id: Id
    item_id: Id
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=MAX_INT64)]
    event_type: Annotated[str, msgspec.Meta(max_length=MAX_TYPE)] | None = DEFAULT_TYPE
    value: float | None = None
    event_id: Annotated[str, msgspec.Meta(max_length=MAX_ID)] | None = None


class Item(msgspec.Struct, gc=False):
    """What is known of an item beside its id, as the demo writes it."""

    item_id: Id
    title: str | None = None
    genres: list[str] = []


class DescribedItem(msgspec.Struct, gc=False):
    """What lists tell of an item. Its metadata are somebody else's: whatever the other fields hold, the item
    has its id.
    """

    item_id: Id
    given_title: Any = msgspec.field(name="title", default=None)
    """a text, most likely; also a null, a number, or a text for each language"""

    @property
    def title(self) -> str | None:
        """The title where it is a text, or a number ("1917"); None otherwise."""
        title = self.given_title
        if isinstance(title, str):
            return title
        if isinstance(title, bool) or not isinstance(title, int | float):
            return None
        try:
            return f"{title:.15g}"
        except OverflowError:  # a whole number that no float holds: JSON's have any length
            return None


class DictionaryEntry(msgspec.Struct, gc=False):
    """An item id under the key of its hash."""

    item_id: Id


class WithdrawableEntry(DictionaryEntry, gc=False, omit_defaults=True):
    """A dictionary entry that may carry over what a tombstone under the item's id said."""

    withdrawn: bool = False
    """overruled by metadata, where there is any"""


class Recommended(msgspec.Struct, gc=False):
    """One place of a list."""

    item_id: str
    score: float


class Recommendation(msgspec.Struct, gc=False):
    """A user's list, best first, as of one record of `events`: consumers drop repeats by (topic_id,
    partition, offset).
    """

    user_id: str
    items: list[Recommended]
    topic_id: str
    partition: int
    offset: int
    timestamp: int
    """event time of the user's last event, ms"""
    epoch: int
    version: str


VersionId = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Share(msgspec.Struct, gc=False):
    """A model version, and the percent of the users whose rows it encodes."""

    version: VersionId
    folder: str
    percent: Annotated[int, msgspec.Meta(ge=1, le=100)]


FigureName = Annotated[str, msgspec.Meta(max_length=100)]


class Decided(msgspec.Struct, gc=False):
    """Why a program made an announcement that ends a canary. What it has announced and not recorded before it
    was killed, it can record afterwards.
    """

    kind: Literal["promoted", "taken back"]
    version: VersionId
    """the canary that was decided about"""
    live: VersionId
    """the version beside it"""
    canary_epoch: Annotated[int, msgspec.Meta(ge=1, le=MAX_EPOCH)]
    reason: Annotated[str, msgspec.Meta(max_length=2_000)]
    figures: Annotated[dict[FigureName, float], msgspec.Meta(max_length=100)]


class Announcement(msgspec.Struct, gc=False, omit_defaults=True):
    """A model version that goes live at an epoch; epochs only grow, a roll-back is a new epoch."""

    epoch: Annotated[int, msgspec.Meta(ge=1, le=MAX_EPOCH)]
    version: VersionId
    folder: str
    announced_at: int
    """wall clock, ms"""
    shares: list[Share] = []
    """of several versions, which add up to 100 percent; `version` is the first of them. Empty: one version
    for all users
    """
    decided: Decided | None = None
    """where it ends a canary by itself"""

    @property
    def every_share(self) -> list[Share]:
        """The shares, also where one version is for all."""
        return self.shares or [Share(self.version, self.folder, 100)]

    @property
    def by_percent(self) -> list[Share]:
        """The shares, the greatest first (of equal ones that which was named first): beside it the others are
        canaries.
        """
        return sorted(self.every_share, key=lambda share: -share.percent)


Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
Counts = Annotated[list[Count], msgspec.Meta(min_length=GROUPS, max_length=GROUPS)]
Sum = Annotated[float, msgspec.Meta(ge=0, le=float(1 << 40))]
Sums = Annotated[list[Sum], msgspec.Meta(min_length=GROUPS, max_length=GROUPS)]


class VersionRanks(msgspec.Struct, gc=False):
    """Counts and sums over the ranked events of the rows of one version at one epoch, by group of users
    (`eddy.stream.state.sampling.group_of`). Recall and reciprocal ranks are those at 20, mode "all"; with the
    prefix `popularity` they are those of decayed popularity on the same events.
    """

    epoch: Annotated[int, msgspec.Meta(ge=1, le=MAX_EPOCH)]
    version: VersionId
    events: Counts
    recall: Counts
    reciprocal: Sums
    popularity_recall: Counts
    popularity_reciprocal: Sums


class IntervalRanks(msgspec.Struct, gc=False):
    """The ranks that one worker has finished in one interval, and told of in no record before."""

    ranks: Annotated[list[VersionRanks], msgspec.Meta(min_length=1, max_length=MAX_RANKED)]


encode = msgspec.json.Encoder().encode
