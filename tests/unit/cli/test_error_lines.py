"""What a command says of an error that is not Eddy's own."""

import aiokafka.errors
import kafka.errors
import pytest

from eddy import __main__ as eddy
from eddy.cli.error_lines import line_for_user

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (kafka.errors.KafkaTimeoutError("no broker"), "did not answer in time (KafkaTimeoutError"),
        (aiokafka.errors.RequestTimedOutError(), "did not answer in time (RequestTimedOutError"),
        (kafka.errors.TopicAuthorizationFailedError(), "refuses to work (TopicAuthorizationFailedError"),
    ],
)
def test_an_error_of_either_client_of_kafka_is_one_line(error: Exception, says: str) -> None:
    line = line_for_user(error)
    assert line is not None
    assert f"the Kafka cluster {says}" in line
    assert "\n" not in line


def test_a_command_during_which_the_cluster_goes_away_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone() -> None:
        raise kafka.errors.KafkaTimeoutError("no broker")

    monkeypatch.setattr(eddy, "app", gone)
    with pytest.raises(SystemExit) as ended:
        eddy.run()
    assert ended.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
