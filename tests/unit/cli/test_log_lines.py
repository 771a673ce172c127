"""Log lines of commands."""

from __future__ import annotations

import logging

import pytest
from kafka.errors import Cancelled, KafkaConnectionError

from eddy.cli.log_lines import new_handler

pytestmark = pytest.mark.unit


def record(logger: str, reason: Exception) -> logging.LogRecord:
    return logging.LogRecord(logger, logging.ERROR, "cluster.py", 1, "failed %s", (reason,), None)


def test_a_client_that_is_closed_reports_no_error_of_what_it_was_asking() -> None:
    handler = new_handler("line")
    assert not handler.filter(record("kafka.cluster", Cancelled()))
    assert handler.filter(record("kafka.cluster", KafkaConnectionError()))
    assert handler.filter(record("eddy.ingest", Cancelled()))
