"""Model versions on `model-versions`: announcing, and knowing the live one.

The topic is compacted; key "live" holds the newest announcement, key "epoch-N" each one, so that an old
row's epoch can be looked up. Epochs only grow.
"""

import time
from pathlib import Path

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from models.errors import EddyError
from models.registry import Version, load
from stream.clients import client_config
from stream.schema import Announcement, encode
from stream.settings import Settings

_decode = msgspec.json.Decoder(Announcement).decode
_TIMEOUT_S = 30


def decode_announcement(value: bytes) -> Announcement:
    """Errors: EddyError when it is none."""
    try:
        return _decode(value)
    except msgspec.DecodeError as error:
        raise EddyError(f"model-versions: unreadable announcement ({error})") from None


def live_announcement(settings: Settings) -> Announcement | None:
    """The announcement with the greatest epoch, None before the first."""
    topic = TopicPartition(settings.topics.model_versions, 0)
    consumer = KafkaConsumer(**client_config(settings), enable_auto_commit=False)
    try:
        consumer.assign([topic])
        consumer.seek_to_beginning(topic)
        end = consumer.end_offsets([topic])[topic]
        best: Announcement | None = None
        deadline = time.monotonic() + _TIMEOUT_S
        while consumer.position(topic) < end:
            if time.monotonic() > deadline:
                raise EddyError(f"topic {topic.topic} cannot be read to its end within {_TIMEOUT_S} s")
            for records in consumer.poll(timeout_ms=500).values():
                for record in records:
                    if record.value is not None:
                        found = decode_announcement(record.value)
                        best = found if best is None or found.epoch > best.epoch else best
        return best
    finally:
        consumer.close()


def announce(settings: Settings, version: Version) -> Announcement:
    """Make a version the live one; workers and servers move to it without stopping. Returns what was
    announced.

    Errors: EddyError for a version that the stream cannot serve.
    """
    _require_served(version)
    before = live_announcement(settings)
    announcement = Announcement(
        epoch=before.epoch + 1 if before else 1,
        version=version.id,
        folder=str(version.path.resolve()),
        announced_at=time.time_ns() // 1_000_000,
    )
    producer = KafkaProducer(**client_config(settings), acks="all")
    try:
        value = encode(announcement)
        for key in (f"epoch-{announcement.epoch}", "live"):
            producer.send(settings.topics.model_versions, key=key.encode(), value=value).get(
                timeout=_TIMEOUT_S
            )
    finally:
        producer.close()
    return announcement


def open_version(announcement: Announcement, registry: Path) -> Version:
    """The announced version's files: from this machine's registry, or from the folder that was announced.

    Errors: EddyError when they cannot be used, or describe a model that the stream cannot serve.
    """
    here = registry / announcement.version
    version = load(here if here.is_dir() else Path(announcement.folder))
    _require_served(version)
    return version


def _require_served(version: Version) -> None:
    try:
        version.recommender.config.require_served()
    except EddyError as error:
        raise EddyError(f"version {version.id} cannot be served: {error}") from None
