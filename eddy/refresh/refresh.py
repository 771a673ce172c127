"""One refresh: export, train, judge, gate, publish, announce.

Guarantee: killed at any moment and begun again with the same options, a refresh goes on with the step that it
was in. A version is published once and announced once. Every decision is recorded beside the versions
(eddy.models.decisions), also why nothing went live.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from eddy.models.descriptions import PARENT, describe, versions
from eddy.models.errors import EddyError, UnfitModel
from eddy.models.evaluation.judgement import decide, judge_candidate
from eddy.models.evaluation.protocols import Mode
from eddy.models.logs.column_store import bounded_store
from eddy.models.logs.events import Events, read_events
from eddy.models.logs.item_features import ItemFeatures, read_features
from eddy.models.logs.log_files import NoFiles
from eddy.models.registry import Version, load, publish
from eddy.models.storage import Location, located
from eddy.models.trained import Trained
from eddy.models.training.resume import OtherRun
from eddy.models.training.train import extend
from eddy.models.training.trainer import Progress
from eddy.refresh.endings import Endings, Outcome
from eddy.refresh.going_live import GoingLive
from eddy.refresh.job import Job, JobFile, Say, Show, new_id, timed
from eddy.refresh.options import Recipe, RefreshOptions, recipe_of
from eddy.refresh.windows import (
    JUDGED_OF_ALL,
    JUDGED_OF_NEW,
    NotYet,
    before,
    names_of,
    times_to_judge,
    unseen_by_all,
    until,
    window_at,
)
from eddy.stream.event_log.export import export
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import live_announcement, open_version, require_served
from eddy.stream.records.schema import Announcement
from eddy.stream.records.settings import Settings


def refresh(settings: Settings, options: RefreshOptions, show: Show, say: Say) -> Outcome:
    """Run a refresh, or go on with one that was killed.

    show: progress of a long step. say: one line per step.

    Errors: NotYet when there are too few new events; EddyError when another refresh of this registry runs, or
    a step fails.
    """
    files = JobFile(settings.registry)
    refusal = f"registry {settings.registry}: another refresh is under way there; wait for it, or stop it"
    with files.held(refusal):
        return _Refresh(settings, options, files, show, say).run()


class _Refresh:
    def __init__(
        self, settings: Settings, options: RefreshOptions, files: JobFile, show: Show, say: Say
    ) -> None:
        self.settings, self.options, self.files = settings, options, files
        self.show, self.say = show, say
        self.endings = Endings(settings.registry, files, options.candidate)
        self.going_live = GoingLive(settings, options, files, self.endings, say)
        self.mode: Mode = "unseen" if settings.exclude_seen else "all"

    def run(self) -> Outcome:
        """The steps, of which those that are done already are left out:

        1. Find out what is live. 2. Export. 3. Plan: fix which events are learned from and which are judged
        on. 4. Train a candidate. 5. Judge it beside the live version. 6. If the gate lets it pass, let it
        learn from all events, publish and announce it, for a share of the users first if that is wanted.
        """
        # 1. What is live.
        prepare_topics(self.settings, "refresh")
        announced = live_announcement(self.settings)
        job = self._job_to_resume(announced)
        if job is not None and job.version:  # only what concerns the announcement is left to do
            return self.going_live.run(job)
        _require_whole(announced)
        live = open_version(announced, self.settings.registry) if announced else None
        # 2. The log.
        seconds = dict(job.seconds) if job else {}
        with timed(seconds, "export"):
            events = self._events(fresh=job is None)
        # 3. The plan.
        recipe = recipe_of(self.options, live)
        if job is None:
            job = self._plan(events, announced, live, recipe)
        job.seconds = seconds
        events = until(events, job.times.until_ms)
        features = read_features(self.options.items) if self.options.items else None
        # 4. The candidate.
        if job.stage == "planned":
            with timed(job.seconds, "train"), self.endings.recorded(job, UnfitModel):
                self._train(job, events, live, recipe, features)
        # 5. The judgement.
        if job.stage == "trained":
            with timed(job.seconds, "judge"):
                self._judge(job, events, live)
        if not job.passed:
            return self.endings.end(job, "refused", None, job.reason)
        # 6. Into production.
        if job.stage == "judged":
            with timed(job.seconds, "publish"), self.endings.recorded(job, UnfitModel):
                self._publish(job, events, recipe, features)
        return self.going_live.run(job)

    @property
    def _identity(self) -> str:
        """Text that differs between options and settings that lead to different versions, or that make them
        live elsewhere.
        """
        settings = self.settings
        log = located(settings.event_log).absolute()
        return f"{self.options.identity} {log} {settings.rules} {self.mode} {settings.topics.model_versions}"

    def _job_to_resume(self, announced: Announcement | None) -> Job | None:
        """The unfinished job, if it is of these options and settings, the same version is live as when it
        began or it has come as far as its own announcement, and what it has made is still there.
        """
        job = self.files.read()
        if job is None:
            return None
        if not (reason := self._why_anew(job, announced)):
            self.say(f"going on with the refresh that was interrupted (it was {job.stage})")
            return job
        self.say(f"an interrupted refresh is begun anew: {reason}")
        self.files.clear()
        return None

    def _why_anew(self, job: Job, announced: Announcement | None) -> str:
        """Why an unfinished job is of no use any more; empty when it is."""
        epoch = announced.epoch if announced else 0
        if job.options != self._identity:
            return "it was begun with other options or settings"
        if job.live_epoch != epoch and not job.version:
            return f"epoch {epoch} is live now, no longer epoch {job.live_epoch}"
        if job.stage == "planned" and not self.files.checkpoint.exists():
            # Its events may be too few to train on, and would be for ever.
            return "no epoch of its training had ended"
        try:
            if job.stage == "judged" and job.passed:
                self._candidate(job)
            elif job.stage == "published" and job.live_epoch == epoch:
                load(self.settings.registry / job.version)
        except EddyError as error:  # removed, or damaged
            return str(error)
        return ""

    def _events(self, fresh: bool) -> Events:
        """The log; Eddy's own is brought up to date first, unless a job goes on that has its plan.

        Errors: NotYet when Eddy's own has no event yet; EddyError when a log cannot be read.
        """
        store = bounded_store(self.settings.training_memory_gb, self.settings.cache_dir)
        if self.options.events is not None:
            return read_events(self.options.events, self.options.time_unit, store, event_ids=False)
        folder = self.settings.event_log
        if fresh:
            self.show("exporting events", 0, 1)
            added = export(self.settings, folder)
            self.say(f"export: {added:,} events added to {folder}")
        try:
            return read_events(folder, store=store, event_ids=False)
        except NoFiles as error:
            raise NotYet(str(error)) from None

    def _plan(
        self, events: Events, announced: Announcement | None, live: Version | None, recipe: Recipe
    ) -> Job:
        """Errors: NotYet; EddyError when a candidate that is given cannot be judged or served."""
        name, registry = self.options.candidate, self.settings.registry
        if name is not None and name not in versions(registry):
            raise EddyError(
                f"--candidate {name!r}: no such version is in the registry {registry}; eddy models list "
                "shows which there are"
            )
        if announced is not None and name == announced.version:
            raise NotYet(f"{name} is live already, as epoch {announced.epoch}")
        try:
            candidate = self._given_candidate()
        except EddyError as error:
            self.endings.record(None, live.id if live else "", "refused", None, str(error))
            raise
        seen_by = [version for version in (live, candidate) if version is not None]
        new = len(events) - unseen_by_all(events, seen_by)
        if new < self.options.least_events:
            raise NotYet(
                f"{new:,} events since {names_of(seen_by)}: a refresh takes {self.options.least_events:,} "
                "new ones (--least-events)"
            )
        share = 1.0 if candidate else JUDGED_OF_NEW if live else JUDGED_OF_ALL
        times = times_to_judge(events, seen_by, share, self.settings.rules, self.mode)
        job = Job(
            id=new_id(),
            options=self._identity,
            live=live.id if live else "",
            live_epoch=announced.epoch if announced else 0,
            times=times,
            warm=recipe.warm,
        )
        if candidate is not None:
            job.candidate, job.stage = candidate.id, "trained"
        self.files.write(job)
        return job

    def _given_candidate(self) -> Version | None:
        """Errors: EddyError for damaged files, and for a version that the stream cannot serve."""
        if self.options.candidate is None:
            return None
        candidate = load(self.settings.registry / self.options.candidate)
        require_served(candidate)
        return candidate

    def _train(
        self, job: Job, events: Events, live: Version | None, recipe: Recipe, features: ItemFeatures | None
    ) -> None:
        learned = before(events, window_at(events, job.times).start)

        def run() -> Trained:
            return recipe.train(
                learned, self.settings.rules, live, self._show_training, self.files.checkpoint, features
            )

        try:
            trained = run()
        except OtherRun:  # late events came into the log since
            self.say("train: the log has changed since the training was interrupted; it begins anew")
            self.files.checkpoint.unlink()
            trained = run()
        candidate = publish(self.files.candidates, trained, self._lineage(job, learned, recipe))
        job.candidate, job.stage = candidate.id, "trained"
        self.files.write(job)
        begun = f"from {job.live}" if recipe.warm else "from scratch"
        self.say(f"train: {len(learned):,} events, {begun}")

    def _judge(self, job: Job, events: Events, live: Version | None) -> None:
        window = window_at(events, job.times)
        with self.endings.recorded(job, EddyError):
            judgement = judge_candidate(
                events, window, self._candidate(job), live, self.settings.rules, self.mode,
                lambda done, of: self.show("ranking", done, of), self.options.metric,
            )  # fmt: skip
        verdict = decide(judgement, self.options.gate)
        job.judgement, job.passed, job.reason = judgement.to_dict(), verdict.passed, verdict.reason
        job.stage = "judged"
        self.files.write(job)
        outcome = "passed" if verdict.passed else "refused"
        self.say(f"gate: {outcome} on {judgement.targets:,} events: {verdict.reason}")

    def _candidate(self, job: Job) -> Version:
        return self._given_candidate() or load(self.files.candidates / job.candidate)

    def _publish(self, job: Job, events: Events, recipe: Recipe, features: ItemFeatures | None) -> None:
        """Let the candidate learn from the window as well, and publish what comes of it; a candidate that was
        given stays as it is.
        """
        registry = self.settings.registry
        if self.options.candidate is not None:
            job.version = job.candidate
        elif published := _published_by(registry, job.id):
            job.version = published
        else:
            trained = extend(self._candidate(job), events, recipe.training, self._show_training, features)
            trained = replace(trained, metrics=trained.metrics | {"judgement": job.judgement})
            job.version = publish(registry, trained, self._lineage(job, events, recipe)).id
            self.say(f"publish: {job.version}, after a pass over all {len(events):,} events")
        job.stage = "published"
        self.files.write(job)

    def _lineage(self, job: Job, events: Events, recipe: Recipe) -> dict[str, Any]:
        lineage: dict[str, Any] = {
            "events": str(located(events.source).absolute()),
            "rows": len(events),
            "training": recipe.training.to_dict(),
            PARENT: job.live or None,
            "warm": recipe.warm,
            "refresh": job.id,
        }
        if self.options.items:
            lineage["items"] = str(located(self.options.items).absolute())
        return lineage

    def _show_training(self, at: Progress) -> None:
        self.show(f"training: {at.text}", at.done, at.total)


def _require_whole(announced: Announcement | None) -> None:
    """Errors: EddyError when the announcement gives users several versions."""
    if announced is not None and announced.shares:
        names = ", ".join(f"{share.version} ({share.percent} %)" for share in announced.shares)
        raise EddyError(
            f"epoch {announced.epoch} gives shares of the users to several versions: {names}; announce one "
            "of them for all (or let `eddy models watch` decide), then refresh"
        )


def _published_by(registry: Location, job: str) -> str | None:
    """The id of the version that this refresh published before it was killed."""
    for name in reversed(versions(registry)):
        with suppress(EddyError):  # a damaged version is somebody else's
            if describe(registry / name).lineage.get("refresh") == job:
                return name
    return None
