"""What ends a worker whose Faust app has ended by itself."""

import asyncio
from typing import Any, cast

import pytest
from aiokafka.errors import IllegalSaslStateError, KafkaError

from eddy.models.errors import EddyError
from eddy.stream.worker.app import until_the_end


class EndedApp:
    """A Faust app that has crashed."""

    def __init__(self, crash_reason: Exception) -> None:
        self.crash_reason = crash_reason

    async def wait_until_stopped(self) -> None:
        pass


def end_of(crash_reason: Exception) -> None:
    async def run() -> None:
        joining: asyncio.Future[None] = asyncio.Future()
        joining.set_result(None)
        await until_the_end(cast(Any, EndedApp(crash_reason)), joining, asyncio.Future())

    asyncio.run(run())


def test_what_the_kafka_client_failed_of_is_passed_on_for_the_reason_behind_it() -> None:
    with pytest.raises(KafkaError) as ended:
        end_of(IllegalSaslStateError())
    assert isinstance(ended.value, IllegalSaslStateError)


def test_an_end_for_another_reason_names_it() -> None:
    with pytest.raises(EddyError, match=r"the Kafka consumer stopped: RuntimeError\('why'\)"):
        end_of(RuntimeError("why"))
