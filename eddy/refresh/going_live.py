"""The last step of a refresh: its version is announced, for a share of the users first if that is wanted."""

from contextlib import suppress
from threading import Event

from eddy.models.registry import load
from eddy.refresh.endings import Endings, Outcome
from eddy.refresh.job import Job, JobFile, Say, timed
from eddy.refresh.options import RefreshOptions
from eddy.stream.canary.trial import Limit
from eddy.stream.canary.watch import watch_canary
from eddy.stream.kafka.versions import (
    Overtaken,
    all_announcements,
    announce,
    announce_shares,
    live_announcement,
    open_version,
)
from eddy.stream.records.schema import Announcement
from eddy.stream.records.settings import Settings


class GoingLive:
    """Makes the version of a refresh live."""

    def __init__(
        self, settings: Settings, options: RefreshOptions, files: JobFile, endings: Endings, say: Say
    ) -> None:
        self._settings, self._options = settings, options
        self._files, self._endings, self._say = files, endings, say

    def run(self, job: Job) -> Outcome:
        """Announce the version, unless that was done before this refresh was killed, and end the refresh."""
        if job.stage == "tried":
            return self._watch(job)
        now = live_announcement(self._settings)
        while now is None or now.epoch == job.live_epoch:
            with suppress(Overtaken):  # by an announcement of somebody else, since we looked
                now = self._announce_now(job, now)
                break
            now = live_announcement(self._settings)
        if job.version not in {share.version for share in now.every_share}:
            reason = f"{now.version} went live as epoch {now.epoch} meanwhile; judge {job.version} anew"
            return self._endings.end(job, "overtaken", None, reason)
        if now.shares:
            job.canary_epoch, job.stage = now.epoch, "tried"
            self._files.write(job)
            return self._watch(job)
        self._say(f"announce: {job.version} is live as epoch {now.epoch}")
        return self._endings.end(job, "went live", now.epoch, job.reason)

    def _announce_now(self, job: Job, before: Announcement | None) -> Announcement:
        """Errors: Overtaken when `before` is not live any more; EddyError."""
        version, percent = load(self._settings.registry / job.version), self._options.canary_percent
        after = before.epoch if before else 0
        if percent is None or before is None:  # a first version has nothing to be tried beside
            return announce(self._settings, version, after=after)
        live = open_version(before, self._settings.registry)
        shares = [(live, 100 - percent), (version, percent)]
        return announce_shares(self._settings, shares, after=after)

    def _watch(self, job: Job) -> Outcome:
        """Wait for what the ranks of the users who try the version say of it."""
        epochs_with_shares = {each.epoch for each in all_announcements(self._settings) if each.shares}
        if job.canary_epoch not in epochs_with_shares:
            # Since this refresh was killed the version was replaced, and then removed by `eddy models prune`.
            reason = f"the announcement of epoch {job.canary_epoch}, by which users tried it, was withdrawn"
            return self._endings.end(job, "overtaken", None, reason)
        self._say(f"canary: {job.version} is tried as epoch {job.canary_epoch}")
        limit = Limit(seconds=self._options.canary_s)
        with timed(job.seconds, "canary"):
            decision = watch_canary(self._settings, job.canary_epoch, limit, Event())
        assert decision is not None  # nobody sets the event
        self._files.clear()
        return Outcome(decision, job.seconds, job.judgement)
