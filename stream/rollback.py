"""`eddy models rollback`: the version that was live before is announced for all users again.

A roll-back is one more announcement with an epoch of its own, so that rolling back twice leads to the
version that all users had; from shares it leads to one version only. It is recorded with the decisions about
versions.
"""

from collections.abc import Sequence

from kafka.errors import KafkaError
from kafka.errors import KafkaTimeoutError as SendTimeoutError

from eddy.models.decisions import Decision, record_decision
from eddy.models.errors import EddyError
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.security.granted import require_permissions
from eddy.stream.kafka.topics import require_topics
from eddy.stream.kafka.versions import all_announcements, announce, open_version
from eddy.stream.records.schema import Announcement, Share
from eddy.stream.records.settings import Settings


def version_before(announcements: Sequence[Announcement]) -> Announcement | None:
    """Out of announcements, oldest first: the newest that gave one version to all users, and another one than
    the newest announcement of all does; None when there is none. A canary that was taken back is therefore
    passed over.
    """
    if not announcements:
        return None
    live = announcements[-1]
    for announcement in reversed(announcements[:-1]):
        if not announcement.shares and announcement.every_share[0].version != _whole(live):
            return announcement
    return None


def _whole(announcement: Announcement) -> str:
    """The version that all users have; empty where several have shares."""
    return "" if announcement.shares else announcement.version


def roll_back(settings: Settings, version: str | None = None) -> Decision:
    """Announce the version that was live before, or the one that is named, for all users; returns the
    decision as it is recorded.

    Errors: EddyError when there is no such version, when its files cannot be loaded (nothing is announced
    then), and when the cluster does not answer.
    """
    with admin_client(settings) as admin:
        require_permissions(admin, settings, "models rollback")
        require_topics(admin, [settings.topics.model_versions])
    try:
        # 1. Which version, and whether it can be loaded.
        announcements = all_announcements(settings)
        if not announcements:
            raise EddyError(
                f"rollback: {settings.topics.model_versions} holds no announcement, so no version is live; "
                "make one live with: eddy announce VERSION"
            )
        live = announcements[-1]
        target = _target(settings, announcements, version)
        try:
            opened = open_version(target, settings.registry)
        except EddyError as error:
            raise EddyError(
                f"rollback: version {target.version} cannot be loaded, and nothing was changed ({error}); "
                "restore its folder from a copy, or name another one: eddy models rollback VERSION"
            ) from None
        # 2. Announce it.
        announced = announce(settings, opened)
    except (KafkaError, SendTimeoutError, OSError) as error:
        raise EddyError(
            f"rollback: the cluster did not answer ({type(error).__name__}: {error}); look at "
            "`eddy models list`, then run it again"
        ) from None
    # 3. Record it.
    decision = Decision(
        kind="rolled back",
        version=opened.id,
        live=live.by_percent[0].version,
        epoch=announced.epoch,
        reason=f"Rolled back by hand from epoch {live.epoch} to "
        + ("the version that was live before." if version is None else "the version that was named."),
        figures={
            "epoch_before": live.epoch,
            "percent_before": {share.version: share.percent for share in live.every_share},
        },
        decided_by="rollback",
    )
    try:
        record_decision(settings.registry, decision)
    except EddyError as error:
        raise EddyError(
            f"rollback: {opened.id} is live as epoch {announced.epoch}, but there is no record of it: {error}"
        ) from None
    return decision


def _target(settings: Settings, announcements: Sequence[Announcement], version: str | None) -> Share:
    """The version to go back to. Errors: EddyError when it is not known, or live already."""
    live = announcements[-1]
    if version is None:
        before = version_before(announcements)
        if before is None:
            raise EddyError(
                "rollback: no announcement names another version that all users had before epoch "
                f"{live.epoch}; name one: eddy models rollback VERSION (eddy models list shows them)"
            )
        return before.every_share[0]
    if version == _whole(live):
        raise EddyError(f"rollback: version {version} is live for all users already, as epoch {live.epoch}")
    for announcement in reversed(announcements):
        for share in announcement.every_share:
            if share.version == version:
                return share
    return Share(version, str(settings.registry / version), 100)


__all__ = ["roll_back", "version_before"]
