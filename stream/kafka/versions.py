"""Model versions on `model-versions`: announcing one, finding the live one and those before, and withdrawing
announcements of versions that are to be removed.

The topic is compacted. The key "live" holds the newest announcement, and a key "epoch-N" holds each of
them, so that the epoch of an old row can be looked up, and the version before the live one. Epochs only grow.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import InvalidProducerEpochError, KafkaError, ProducerFencedError

from eddy.models.descriptions import DESCRIPTION
from eddy.models.errors import EddyError
from eddy.models.registry import Version, load
from eddy.models.storage import Place, located
from eddy.models.untrusted import FAILURES, Unreadable, decoded, reason_of
from eddy.stream.kafka.clients import new_consumer, new_sync_producer, records_to_end
from eddy.stream.kafka.security.permissions import announcer_of
from eddy.stream.records.schema import MAX_EPOCH, Announcement, Decided, Share, encode
from eddy.stream.records.settings import Settings

_decode = msgspec.json.Decoder(Announcement).decode
_TIMEOUT_S = 30

_FENCED = (ProducerFencedError, InvalidProducerEpochError)
_ATTEMPTS = 20
"""So often an announcement is tried that others overtake."""

log = logging.getLogger("eddy.versions")


def decode_announcement(value: bytes) -> Announcement:
    """The announcement in a record's value. Errors: Unreadable when it is none."""
    try:
        announcement = decoded(_decode, value)
        if problem := _problem_of_shares(announcement.every_share):
            raise Unreadable(problem)
    except Unreadable as reason:
        raise Unreadable(f"not an announcement of a model version ({reason})") from None
    return announcement


def _problem_of_shares(shares: Sequence[Share]) -> str:
    """What is wrong with shares, empty when nothing is."""
    percent = sum(share.percent for share in shares)
    if percent != 100:
        return f"shares add up to {percent} percent, not to 100"
    if len({share.version for share in shares}) < len(shares):
        return "a version has two shares"
    return ""


class AnnouncementReader:
    """Reads what was announced; then, whenever it is asked, what was announced meanwhile. It connects when it
    is first asked, and again after a failure.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = TopicPartition(settings.topics.model_versions, 0)
        self._consumer: KafkaConsumer | None = None
        self._newest: dict[bytes, Announcement] = {}

    def by_key(self) -> dict[bytes, Announcement]:
        """The newest announcement under each key, in the order in which they were written; empty before the
        first. A tombstone withdraws the one under its key; unreadable records are passed over.

        Errors: NotReadInTime and kafka-python's.
        """
        try:
            self._read_on()
        except BaseException:
            self.close()
            raise
        return dict(self._newest)

    def all(self) -> list[Announcement]:
        """The announcement of each epoch that is not withdrawn, oldest first. Errors: as `by_key`."""
        return oldest_first(self.by_key().values())

    def close(self) -> None:
        """Close the connection, if there is one."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _connected(self) -> KafkaConsumer:
        """A consumer that has read what is in `_newest`."""
        if self._consumer is None:
            self._newest.clear()
            self._consumer = new_consumer(
                self._settings, enable_auto_commit=False, isolation_level="read_committed"
            )
            self._consumer.assign([self._topic])
            self._consumer.seek_to_beginning(self._topic)
        return self._consumer

    def _read_on(self) -> None:
        consumer, topic = self._connected(), self._topic
        end = consumer.end_offsets([topic])
        if end[topic] < consumer.position(topic):  # the topic was deleted and made again
            self._newest.clear()
            consumer.seek_to_beginning(topic)
        for record in records_to_end(consumer, end, _TIMEOUT_S):
            key = record.key or b""
            if record.value is None:
                self._newest.pop(key, None)
                continue
            try:
                announcement = decode_announcement(record.value)
            except Unreadable as reason:
                log.warning("%s offset %d: %s; passed over", topic.topic, record.offset, reason)
                continue
            self._newest.pop(key, None)  # so that it comes last
            self._newest[key] = announcement


def announcements_by_key(settings: Settings) -> dict[bytes, Announcement]:
    """What `AnnouncementReader.by_key` says now. Errors: likewise."""
    with closing(AnnouncementReader(settings)) as reader:
        return reader.by_key()


def oldest_first(announcements: Iterable[Announcement]) -> list[Announcement]:
    """One announcement of each epoch, in the order of epochs."""
    by_epoch: dict[int, Announcement] = {}
    for announcement in announcements:
        by_epoch.setdefault(announcement.epoch, announcement)
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def all_announcements(settings: Settings) -> list[Announcement]:
    """The announcement of each epoch that is not withdrawn, oldest first."""
    return oldest_first(announcements_by_key(settings).values())


def live_announcement(settings: Settings) -> Announcement | None:
    """The announcement with the greatest epoch; None before the first."""
    announcements = all_announcements(settings)
    return announcements[-1] if announcements else None


def withdraw(settings: Settings, keys: Iterable[bytes]) -> None:
    """Write tombstones, so that the announcements under these keys are not there any more."""
    producer = new_sync_producer(settings)
    try:
        for key in keys:
            producer.send(settings.topics.model_versions, key=key, value=None).get(timeout=_TIMEOUT_S)
    finally:
        producer.close()


def announce(settings: Settings, version: Version, *, after: int | None = None) -> Announcement:
    """Make a version the live one, to which workers and servers move without stopping; returns the
    announcement.

    after: as for `announce_shares`. Errors: likewise.
    """
    return announce_shares(settings, [(version, 100)], after=after)


class Overtaken(EddyError):
    """Somebody else has made an announcement meanwhile."""


def announce_shares(
    settings: Settings,
    versions: Sequence[tuple[Version, int]],
    decided: Decided | None = None,
    *,
    after: int | None = None,
) -> Announcement:
    """The same for several versions, each with its percent of the users.

    decided: what it ends, where it ends a canary. after: the epoch that must still be the live one, 0 for
    none at all; None: any, or that of the canary. Errors: EddyError for a version that the stream cannot
    serve, and for shares that do not add up; Overtaken, before anything is written, when another epoch is
    live.
    """
    if decided is not None:
        after = decided.canary_epoch
    shares = [Share(version.id, str(version.location.absolute()), percent) for version, percent in versions]
    if problem := _problem_of_shares(shares):
        raise EddyError(f"announce: {problem}")
    for version, _ in versions:
        require_served(version)
    descriptions = [version.location / DESCRIPTION for version, _ in versions]
    descriptions = [file for file in descriptions if file.is_file()]
    unclear: list[Announcement] = []
    for _ in range(_ATTEMPTS):
        try:
            announcement = _announce_alone(settings, shares, decided, after, unclear)
            break
        except _Fenced:
            log.info("somebody else announces at this moment; trying again")
        except _Unclear as outcome:
            log.info("%s; looking whether the announcement was made", outcome.__cause__)
            unclear.append(outcome.announcement)
    else:
        raise EddyError(
            f"{settings.topics.model_versions}: others announce versions again and again; try it later"
        )
    # Whoever removes a version looks for announcements once its folder is out of sight (eddy.stream.prune).
    for file in descriptions:
        if not file.is_file():
            raise EddyError(
                f"announced as epoch {announcement.epoch}, but {file.parent} was removed meanwhile: announce "
                "another version"
            )
    return announcement


class _Fenced(Exception):
    """Somebody else has begun to announce."""


class _Unclear(Exception):
    """The cluster did not say whether a transaction was committed."""

    def __init__(self, announcement: Announcement) -> None:
        super().__init__()
        self.announcement = announcement


def _announce_alone(
    settings: Settings, shares: list[Share], decided: Decided | None, after: int | None,
    unclear: Sequence[Announcement],
) -> Announcement:  # fmt: skip
    """Write an announcement with the next epoch.

    Whoever begins fences those who have begun before, and only then looks at what is there: an announcement
    made meanwhile is either seen or fails, so that no two have one epoch. unclear: those that were perhaps
    made by earlier attempts; one that was is returned. Errors: _Fenced, _Unclear.
    """
    topic = settings.topics.model_versions
    # 1. From here on nobody who has begun before can end a transaction.
    producer = new_sync_producer(settings, transactional_id=announcer_of(topic))
    try:
        producer.init_transactions()
        # 2. What follows on what is there.
        before = live_announcement(settings)
        for announcement in all_announcements(settings) if unclear else ():
            if announcement in unclear:
                return announcement
        live_epoch = before.epoch if before else 0
        if after not in (None, live_epoch):
            raise Overtaken(f"epoch {after} is not live any more: epoch {live_epoch} is")
        if live_epoch == MAX_EPOCH:
            raise EddyError(
                f"{topic} holds an announcement with the last possible epoch ({MAX_EPOCH}), which Eddy did "
                "not write: remove it by a tombstone under its key"
            )
        announcement = Announcement(
            epoch=live_epoch + 1,
            version=shares[0].version,
            folder=shares[0].folder,
            announced_at=time.time_ns() // 1_000_000,
            shares=shares if len(shares) > 1 else [],
            decided=decided,
        )
        # 3. Both records, or none.
        value = encode(announcement)
        producer.begin_transaction()
        sent = [
            producer.send(topic, key=key.encode(), value=value)
            for key in (f"epoch-{announcement.epoch}", "live")
        ]
        for future in sent:
            future.get(timeout=_TIMEOUT_S)
        try:
            producer.commit_transaction()
        except KafkaError as error:
            if _says_fenced(error):
                raise
            raise _Unclear(announcement) from error
        return announcement
    except KafkaError as error:
        if _says_fenced(error):
            raise _Fenced from error
        raise
    finally:
        producer.close()


def _says_fenced(error: KafkaError) -> bool:
    """Whether a producer was fenced, itself or, as kafka-python tells of it at the next call, before."""
    return isinstance(error, _FENCED) or any(isinstance(cause, _FENCED) for cause in error.args)


def open_version(announced: Announcement | Share, registry: Place) -> Version:
    """The announced version, from this process's registry or else from the folder that was announced. An
    announced folder on object storage is not followed: whoever can write an announcement could lead this
    process, with its credentials, anywhere.

    Errors: EddyError, whatever an announcement names, and for a version that the stream cannot serve.
    """
    try:
        folder = located(registry) / announced.version
        if not folder.is_folder() and "://" in announced.folder:
            raise EddyError(
                f"version {announced.version} is not in the registry {registry}; it was announced as "
                f"{announced.folder}: set EDDY_REGISTRY to the registry there"
            )
        version = load(folder if folder.is_folder() else Path(announced.folder))
    except (OSError, TypeError, AttributeError, *FAILURES) as error:
        raise EddyError(
            f"version {announced.version}: its files cannot be read ({reason_of(error)})"
        ) from None
    if version.id != announced.version:
        raise EddyError(f"version {announced.version} was announced, {version.location} holds {version.id}")
    require_served(version)
    return version


def require_served(version: Version) -> None:
    """Errors: EddyError for a version that the stream cannot serve."""
    try:
        version.recommender.config.require_served()
    except EddyError as error:
        raise EddyError(f"version {version.id} cannot be served: {error}") from None
