"""Logs that an earlier version of Eddy wrote: one position for all partitions, whose events share their
parts.

    day=2013-03-01/part-00000000.parquet    events of all partitions
    _position.json                          topic, topic id, next part number, next offsets, erasures

They are converted once, when an export opens them. Until the last step the earlier files are the log, for
readers (eddy.models.logs.manifests) as for the next process that has to begin anew, because this one was
killed.
"""

import json
import logging
import re
import secrets
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from eddy.models.errors import EddyError
from eddy.models.logs.manifests import EARLIER_STATE, FOLDER, Manifest, Part
from eddy.models.storage import FileEntry, Location
from eddy.stream.event_log.bucket import commit
from eddy.stream.event_log.parts import DAY, PartWriter, is_part, new_part, read_part

log = logging.getLogger("eddy.event_log")

_EARLIER_PART = re.compile(r"part-\d{8,18}\.parquet|\.part-\d{8,18}\.writing")


@dataclass(frozen=True)
class _Position:
    """How far the earlier log is: everything before `offsets` is in parts with numbers below `part`."""

    topic: str
    topic_id: str
    part: int
    offsets: dict[int, int]
    erasures: list[tuple[int, int, str]]
    """(partition, offset, user)"""


def convert(folder: Location, topic: str, topic_id: str) -> None:
    """Make manifests and parts by partition of an earlier log, for the only process that opens it.

    1. Files of a conversion that was killed are removed.
    2. Day by day, the events of each partition become one part.
    3. Every partition has its manifest.
    4. `_position.json` goes: now the manifests are the log. Then the earlier parts go.

    Errors: EddyError when it is the log of another topic, or cannot be read; OSError.
    """
    position = _position(folder)
    refuse_other_topic(folder, position.topic, position.topic_id, topic, topic_id)
    log.info("event log %s: an earlier version wrote it; it is converted once", folder)
    # 1. Leftovers.
    files = folder.files()
    for file in files:
        if file.folders[:1] == (FOLDER,) or is_part(file):
            file.location.delete()
    # 2. Parts.
    earlier = [file for file in files if is_earlier_part(file)]
    covered = [file for file in earlier if _number(file) < position.part]
    parts: dict[int, list[Part]] = {partition: [] for partition in position.offsets}
    for day in sorted({file.folders[0].removeprefix("day=") for file in covered}):
        of_day = [file.location for file in covered if file.folders[0] == f"day={day}"]
        for partition, part in _by_partition(folder, day, of_day).items():
            parts.setdefault(partition, []).append(part)
    # 3. Manifests.
    writer = secrets.token_hex(4)
    for partition, of_partition in parts.items():
        erasures = [(offset, user) for number, offset, user in position.erasures if number == partition]
        manifest = Manifest(
            partition,
            topic,
            topic_id,
            position.offsets.get(partition, 0),
            tuple(of_partition),
            tuple(erasures),
        )
        commit(folder, None, manifest, writer)
    # 4. From here on the manifests count.
    (folder / EARLIER_STATE).delete()
    for file in earlier:
        file.location.delete()


def _by_partition(folder: Location, day: str, files: list[Location]) -> dict[int, Part]:
    """Write a day's events as one part per partition; each is in offset order, as they are in the files."""
    writers: dict[int, PartWriter] = {}
    with ExitStack() as open_parts:
        for file in files:
            for table in read_part(file):
                partition = np.asarray(table["partition"].to_numpy())
                for number in np.unique(partition).tolist():
                    if number not in writers:
                        writers[number] = open_parts.enter_context(new_part(folder, number, day))
                    writers[number].add(table.filter(partition == number))
    return {number: writer.part for number, writer in writers.items() if writer.part}


def is_earlier_part(file: FileEntry) -> bool:
    """Whether an earlier version of Eddy wrote this file of a log as a part, or the draft of one."""
    return len(file.folders) == 1 and bool(
        DAY.fullmatch(file.folders[0]) and _EARLIER_PART.fullmatch(file.location.name)
    )


def _number(file: FileEntry) -> int:
    """A part's number; the draft of one has none that counts."""
    digits = file.location.name.removeprefix("part-").removesuffix(".parquet")
    return int(digits) if digits.isdecimal() else 1 << 62


def _position(folder: Location) -> _Position:
    """Errors: EddyError when it cannot be read."""
    file = folder / EARLIER_STATE
    try:
        stored = json.loads(file.read())
        offsets = {int(number): int(offset) for number, offset in stored["offsets"].items()}
        erasures = [(int(number), int(offset), str(user)) for number, offset, user in stored["erasures"]]
        return _Position(stored["topic"], stored["topic_id"], int(stored["part"]), offsets, erasures)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EddyError(
            f"{file}: unreadable ({type(error).__name__}: {error}); export to a new folder"
        ) from None


def refuse_other_topic(folder: Location, topic: str, topic_id: str, now: str, now_id: str) -> None:
    """Errors: EddyError when a log of one topic is not the log of the other."""
    if topic_id != now_id:
        raise EddyError(
            f"event log {folder}: it was exported from another topic ({topic}, id {topic_id}; now {now}, id "
            f"{now_id}); export to a new folder"
        )
