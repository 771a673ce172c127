"""Business rules from a file to the topic `items`, where servers read them."""

from pathlib import Path

from kafka.errors import KafkaError

from eddy.models.errors import EddyError
from eddy.serving.catalogue.rules import decode_rules
from eddy.stream.kafka.clients import admin_client, new_sync_producer
from eddy.stream.kafka.security.granted import require_permissions
from eddy.stream.kafka.topics import require_topics
from eddy.stream.records.schema import RULES_KEY
from eddy.stream.records.settings import Settings

_TIMEOUT_S = 30


def publish_rules(settings: Settings, path: Path) -> int:
    """Replace the rules by those of a file; returns how many there are.

    Errors: EddyError for a file that cannot be read or used, and when the cluster does not take them.
    """
    try:
        document = path.read_bytes()
    except OSError as error:
        raise EddyError(f"{path}: {error.strerror or error}") from None
    try:
        rules = decode_rules(document).rules
    except EddyError as error:
        raise EddyError(f"{path}: {error}") from None
    with admin_client(settings) as admin:
        require_permissions(admin, settings, "rules")
        require_topics(admin, [settings.topics.items])
    producer = new_sync_producer(settings)
    try:
        producer.send(settings.topics.items, key=RULES_KEY, value=document, partition=0).get(_TIMEOUT_S)
    except KafkaError as error:
        raise EddyError(f"the rules could not be written to {settings.topics.items}: {error!r}") from None
    finally:
        producer.close()
    return len(rules)
