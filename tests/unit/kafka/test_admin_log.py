"""What kafka-python logs beside Eddy's own lines."""

from __future__ import annotations

import logging

from eddy.stream.kafka import clients


def test_what_kafka_python_cannot_read_of_a_group_is_not_dumped_into_the_log_of_any_command() -> None:
    assert clients.__name__
    assert not logging.getLogger("kafka.admin._groups").isEnabledFor(logging.WARNING)
