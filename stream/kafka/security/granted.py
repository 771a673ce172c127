"""Whether the cluster allows a command what it does, before it begins.

Kafka answers a forbidden request with the name of the resource and leaves the operation out; some clients go
on asking for ever. But it tells a client what it may do on a topic or a group. So that is compared with what
the command needs, and what is missing is named in one line.
"""

from __future__ import annotations

from collections.abc import Iterable

from kafka import KafkaAdminClient
from kafka.errors import (
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    TransactionalIdNotFoundError,
)

from eddy.models.errors import EddyError
from eddy.stream.kafka.security.permissions import RESOURCES, Permission, needed_by, principal_of
from eddy.stream.records.settings import Settings


class NotAllowed(EddyError):
    """The cluster does not allow what a command does."""


def require_permissions(
    admin: KafkaAdminClient, settings: Settings, command: str, source: str | None = None
) -> None:
    """Check that the cluster allows a command what it does; source: as for `needed_by`.

    Errors: NotAllowed, with each permission that is missing. A cluster that does not say what it allows is
    believed to allow it.
    """
    if missing := missing_permissions(admin, needed_by(command, settings, source)):
        principal = principal_of(settings) or "User:…"
        lines = ", ".join(f"allow {principal} {permission}" for permission in missing)
        option = f" --topic {source}" if source else ""
        raise NotAllowed(
            f"the cluster does not allow what `eddy {command}` does; missing: {lines}. An administrator adds "
            f"that: `eddy acls --principal {principal} --for '{command}'{option}` prints how"
        )


def missing_permissions(admin: KafkaAdminClient, needed: Iterable[Permission]) -> list[Permission]:
    """Those that the cluster does not allow this client, as far as it says; of a resource that the client may
    not even know of, all that are needed. Errors: EddyError when it does not answer.
    """
    needed = list(needed)
    of = {kind: [each for each in needed if each.resource == kind] for kind in RESOURCES}
    try:
        allowed = {
            **_on_topics(admin, {each.name for each in of["topic"]}),
            **_on_groups(admin, {each.name for each in of["group"]}),
            **_on_transactional_ids(admin, of["transactional-id"]),
        }
    except (KafkaError, OSError) as error:
        raise EddyError(
            f"the cluster did not say what it allows ({type(error).__name__}): try again"
        ) from error
    return [
        each
        for each in needed
        if (operations := allowed.get((each.resource, each.name))) is not None
        and each.operation not in operations
    ]


Allowed = dict[tuple[str, str], set[str] | None]
"""By resource and name: the operations that are allowed; None where the cluster does not say."""


def _on_topics(admin: KafkaAdminClient, names: set[str]) -> Allowed:
    allowed: Allowed = {}
    for topic in admin.describe_topics(sorted(names)) if names else []:
        if topic["error_code"] == TopicAuthorizationFailedError.errno:
            allowed["topic", topic["name"]] = set()
        else:  # also for a topic that does not exist
            allowed["topic", topic["name"]] = _operations(topic)
    return allowed


def _on_groups(admin: KafkaAdminClient, names: set[str]) -> Allowed:
    allowed: Allowed = {}
    for name in sorted(names):
        try:
            allowed["group", name] = _operations(admin.describe_groups([name])[name])
        except GroupAuthorizationFailedError:
            allowed["group", name] = set()
        except CoordinatorNotAvailableError:  # a cluster that has seen no group yet
            pass
    return allowed


def _on_transactional_ids(admin: KafkaAdminClient, needed: Iterable[Permission]) -> Allowed:
    """Kafka says of these only whether a client may know of them, as whoever may write with them does."""
    allowed: Allowed = {}
    for each in needed:
        try:
            admin.describe_transactions([f"{each.name}0" if each.prefixed else each.name])
        except TransactionalIdAuthorizationFailedError:
            allowed["transactional-id", each.name] = set()
        except (CoordinatorNotAvailableError, TransactionalIdNotFoundError):  # nobody has written with it
            pass
    return allowed


def _operations(described: dict[str, object]) -> set[str] | None:
    operations = described.get("authorized_operations")
    return set(operations) if isinstance(operations, list) else None
