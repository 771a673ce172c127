"""The manifests of an event log: which files it consists of, and how far each partition of `events` is in it.

    _manifest/bucket=0003/00000017-1a2b3c4d.json    the newest state of partition 3: number and writer
    day=2013-03-01/bucket=0003/part-….parquet       its events of a day

A bucket holds the events of one partition, and so all events of its users. A manifest is written whole, is
never changed, and says everything about its bucket; the one with the greatest name counts. Whoever reads the
log reads exactly the parts that the newest manifests list. Any other file is what a killed export left, or
waits for its removal.

A log that an earlier version of Eddy wrote has no manifests but one file, `_position.json`. It is read whole,
and while that file is there, manifests beside it count for nothing: they belong to a conversion that is
unfinished.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec

from eddy.models.errors import EddyError
from eddy.models.storage import Found, Location, one_line
from eddy.models.untrusted import Unreadable, decoded

FOLDER = "_manifest"
EARLIER_STATE = "_position.json"
FORMAT = 1

_BUCKET = re.compile(r"bucket=(\d{4,10})")
_NAME = re.compile(r"(\d{8,18})-[0-9a-f]{8}\.json")
_PART = re.compile(r"day=\d{4,6}-\d\d-\d\d/bucket=\d{4,10}/part-[0-9a-z-]{1,60}\.parquet")
_MAX_BYTES = 64 << 20
_AT_ONCE = 16  # requests to object storage
_TRIES = 5


class Part(msgspec.Struct, frozen=True):
    """A file of events of one day and one partition, in the order of their offsets."""

    path: str
    """from the log's folder on"""
    rows: int
    bytes: int
    earliest_ms: int
    latest_ms: int
    first_offset: int

    def __post_init__(self) -> None:
        if not _PART.fullmatch(self.path):
            raise ValueError(f"{self.path!r} is no part's path")

    @property
    def day(self) -> str:
        """Such as 2013-03-01."""
        return self.path.split("/", 1)[0].removeprefix("day=")


class Replaced(msgspec.Struct, frozen=True):
    """A file that newer parts have replaced; it stays a while for those who are reading it."""

    path: str
    at_ms: int
    """wall time"""

    def __post_init__(self) -> None:
        if not _PART.fullmatch(self.path):
            raise ValueError(f"{self.path!r} is no part's path")


class Manifest(msgspec.Struct, frozen=True):
    """The state of a bucket: all events before `next_offset` of one partition of `events` are in `parts`."""

    bucket: int
    topic: str
    topic_id: str
    next_offset: int
    parts: tuple[Part, ...] = ()
    """by day, and within a day by offset"""
    erasures: tuple[tuple[int, str], ...] = ()
    """(offset, user) of each tombstone whose user's earlier events are still to be removed"""
    replaced: tuple[Replaced, ...] = ()
    format: int = FORMAT


class Stored(msgspec.Struct, frozen=True):
    """A manifest and where it lies."""

    number: int
    location: Location
    manifest: Manifest


_decode = msgspec.json.Decoder(Manifest).decode


def bucket_name(bucket: int) -> str:
    """The name of a bucket's folders."""
    return f"bucket={bucket:04d}"


def manifest_location(log: Location, bucket: int, number: int, writer: str) -> Location:
    """Where a manifest lies; writer: 8 hexadecimal digits."""
    return log / FOLDER / bucket_name(bucket) / f"{number:08d}-{writer}.json"


def encode_manifest(manifest: Manifest) -> bytes:
    """The content of its file."""
    return msgspec.json.encode(manifest)


def numbered_manifests(log: Location, bucket: int | None = None) -> dict[int, list[tuple[int, Location]]]:
    """Every manifest that is there, by bucket: (number, location), newest last.

    bucket: only this one. Errors: OSError.
    """
    folder = log / FOLDER if bucket is None else log / FOLDER / bucket_name(bucket)
    above = () if bucket is None else (bucket_name(bucket),)
    by_bucket: dict[int, list[tuple[int, Location]]] = {}
    for number_of, number, location in _named(folder.files(), above):
        by_bucket.setdefault(number_of, []).append((number, location))
    for numbered in by_bucket.values():
        numbered.sort(key=lambda pair: (pair[0], pair[1].name))
    return by_bucket


def _named(files: list[Found], above: tuple[str, ...]) -> Iterator[tuple[int, int, Location]]:
    for file in files:
        folders = above + file.folders
        name = _NAME.fullmatch(file.location.name)
        if name and len(folders) == 1 and (bucket := _BUCKET.fullmatch(folders[0])):
            yield int(bucket[1]), int(name[1]), file.location


def newest_manifests(log: Location) -> dict[int, Stored]:
    """The newest manifest of each bucket; none where the log has none.

    Errors: EddyError for a manifest that cannot be read; OSError when the storage cannot be listed.
    """
    for _ in range(_TRIES):
        newest = [(bucket, *numbered[-1]) for bucket, numbered in sorted(numbered_manifests(log).items())]
        try:
            # One request each: side by side where each takes its time.
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                read = list(pool.map(lambda each: read_manifest(*each), newest))
        except FileNotFoundError:  # an export has written newer ones meanwhile
            continue
        return {stored.manifest.bucket: stored for stored in read}
    raise EddyError(f"event log {log}: its manifests changed as fast as they were read; run it again")


def read_manifest(bucket: int, number: int, location: Location) -> Stored:
    """Errors: FileNotFoundError when it has gone; EddyError when it cannot be read."""
    try:
        content = location.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise Unreadable(f"more than {_MAX_BYTES} bytes")
        manifest = decoded(_decode, content)
        if manifest.format != FORMAT or manifest.bucket != bucket:
            raise Unreadable(
                f"format {manifest.format}, bucket {manifest.bucket}; expected {FORMAT}, {bucket}"
            )
    except FileNotFoundError:
        raise
    except (OSError, ValueError, Unreadable) as error:
        raise EddyError(
            f"{location}: unreadable ({one_line(error)}); restore it from a copy, or export to a new folder"
        ) from None
    return Stored(number, location, manifest)
