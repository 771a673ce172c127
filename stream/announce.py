"""Making versions live by hand: `eddy announce`, and who trains with `--announce`."""

from collections.abc import Sequence

from eddy.models.decisions import Decision, record_decision
from eddy.models.errors import EddyError
from eddy.models.registry import Version
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import announce_shares, live_announcement
from eddy.stream.records.schema import Announcement
from eddy.stream.records.settings import Settings


def make_live(settings: Settings, versions: Sequence[tuple[Version, int]]) -> Announcement:
    """Announce versions, each with its percent of the users, and record that a version went live for all.

    Errors: EddyError, and kafka-python's of a cluster that does not answer.
    """
    prepare_topics(settings, "announce")
    before = live_announcement(settings)
    announcement = announce_shares(settings, versions)
    if not announcement.shares:  # of several, whoever watches them records what becomes of them
        decision = Decision(
            kind="went live",
            version=announcement.version,
            live=before.by_percent[0].version if before else "",
            epoch=announcement.epoch,
            reason="Announced by hand.",
            figures={},
            decided_by="announce",
        )
        try:
            record_decision(settings.registry, decision)
        except EddyError as error:
            raise EddyError(
                f"announce: {announcement.version} is live as epoch {announcement.epoch}, but there is no "
                f"record of it: {error}"
            ) from None
    return announcement
