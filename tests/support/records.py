"""Consumed records without Kafka."""

from __future__ import annotations

from dataclasses import dataclass

NOW = 1_700_000_000_000


@dataclass(frozen=True)
class Record:
    """What readers look at of a consumed record."""

    key: bytes | None
    value: bytes | None
    offset: int = 0
    timestamp: int = NOW
    """of its append"""
    topic: str = "topic"
    partition: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()
