"""Reads when events were appended and when their answers were, after the fact: nothing is measured by the
clock of the measuring process, which so takes little processor time from what it measures.

Both topics have the broker's LogAppendTime. An event's first answer counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings
from tests.bench.answered import Answered
from tests.bench.freshness import decode_answer, poll_records

READ_S = 120.0
GRACE_S = 1.0
"""How long the answers to the last events are waited for."""


@dataclass(frozen=True)
class Mark:
    """Where `events` and `recommendations` ended at a moment, by partition."""

    events: list[int]
    answers: list[int]


class AnswerLog:
    """The two topics of one installation; a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._topics = settings, settings.topics
        config = {"group.id": "answers", "enable.auto.commit": False}
        self._consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers, **config})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def mark(self) -> Mark:
        """Where the topics end now."""
        answers = self._ends(self._topics.recommendations)  # first: answers to later events come after it
        return Mark(self._ends(self._topics.events), answers)

    def since(self, mark: Mark) -> Answered:
        """What was appended from the mark until now, and answered by a moment later. Errors: EddyError when
        the log cannot be read.
        """
        ends = self._ends(self._topics.events)
        time.sleep(GRACE_S)
        until, answers_ends = time.time(), self._ends(self._topics.recommendations)
        appended = [np.full(end - start, np.nan) for start, end in zip(mark.events, ends, strict=True)]
        answered = [np.full(len(times), np.nan) for times in appended]
        for record in self._records(self._topics.events, mark.events, ends):
            number = record.partition()
            index = record.offset() - mark.events[number]
            if index < len(appended[number]):
                appended[number][index] = _seconds(record)
        advanced: list[list[float]] = [[] for _ in appended]
        latest: dict[int, int] = {}
        for record in self._records(self._topics.recommendations, mark.answers, answers_ends):
            number = record.partition()
            index = decode_answer(record.value()).offset - mark.events[number]
            if index > latest.get(number, index - 1):
                advanced[number].append(_seconds(record))
                latest[number] = index
            if 0 <= index < len(answered[number]) and np.isnan(answered[number][index]):
                answered[number][index] = _seconds(record)
        return Answered(appended, answered, [np.array(times, np.float64) for times in advanced], until)

    def _ends(self, topic: str) -> list[int]:
        return [self._end(TopicPartition(topic, number)) for number in range(self._settings.partitions)]

    def _end(self, partition: TopicPartition) -> int:
        deadline = time.monotonic() + READ_S
        while True:
            try:
                return int(self._consumer.get_watermark_offsets(partition)[1])
            except KafkaException as error:  # a cluster under load answers so for a moment
                if time.monotonic() > deadline:
                    raise EddyError(f"{partition.topic}: {error}") from None
                time.sleep(0.1)

    def _records(self, topic: str, starts: list[int], ends: list[int]) -> Iterator[Message]:
        positions = dict(enumerate(starts))
        self._consumer.assign([TopicPartition(topic, number, start) for number, start in positions.items()])
        deadline = time.monotonic() + READ_S
        while any(positions[number] < end for number, end in enumerate(ends)):
            if time.monotonic() > deadline:
                raise EddyError(f"{topic} cannot be read to its end within {READ_S:.0f} s")
            for record in poll_records(self._consumer):
                positions[record.partition()] = record.offset() + 1
                yield record


def _seconds(record: Message) -> float:
    """When a record was appended, s since 1970."""
    return float(record.timestamp()[1]) / 1000
