"""All versions at one look: the registry, the newest announcement, what is loaded here, and live ranks."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import numpy as np

from eddy.models.decisions import MADE_LIVE, Decision
from eddy.models.descriptions import PARENT, Description
from eddy.models.evaluation.sequential import SequentialTest
from eddy.models.plain_json import plain
from eddy.serving.live.installation import Situation
from eddy.serving.live.ranks import Ranks, live_ranks
from eddy.serving.versions.answers import DecisionAbout, Difference, VersionInfo, Versions
from eddy.serving.versions.registry import RegistryContents, milliseconds
from eddy.serving.view import VersionAt
from eddy.stream.canary.trial import METRIC, group_sums
from eddy.stream.records.rank_counts import RankedBy
from eddy.stream.records.schema import Share

ERROR = 0.025
"""On each side of a difference's interval."""


def overview(
    contents: RegistryContents,
    situation: Situation,
    ranks: Ranks,
    loaded: Collection[str],
    failed: Mapping[VersionAt, str],
) -> Versions:
    """The versions of the registry, and those that are announced, the newest first.

    loaded: ids of the versions that can answer here; failed: why others cannot.
    """
    newest = max((at.epoch for at in situation.live), default=None)
    shares = {situation.announced[at].version: situation.announced[at] for at in situation.live}
    announced_at: dict[str, VersionAt] = {}
    for at, share in situation.announced.items():
        announced_at[share.version] = max(at, announced_at.get(share.version, at))
    known = dict.fromkeys([*contents.described, *sorted(shares)])
    return Versions(
        epoch=newest,
        shares={version: share.percent / 100 for version, share in shares.items()},
        versions=[
            _info(id_, contents, shares, announced_at.get(id_), newest, ranks, id_ in loaded, failed)
            for id_ in sorted(known, reverse=True)
        ],
        problems=[*([contents.problem] if contents.problem else []), *contents.unreadable],
    )


def _info(
    id_: str,
    contents: RegistryContents,
    shares: Mapping[str, Share],
    at: VersionAt | None,
    newest: int | None,
    ranks: Ranks,
    loaded: bool,
    failed: Mapping[VersionAt, str],
) -> VersionInfo:
    about = contents.described.get(id_, contents.problem or "it is not in this server's registry")
    problem = None if isinstance(about, Description) else about
    if at is not None and at in failed:
        problem = failed[at]
    description = about if isinstance(about, Description) else None
    decision = contents.last_decision(id_)
    counted = None if at is None else ranks.all_of(RankedBy(at.epoch, id_))
    return VersionInfo(
        id=id_,
        parent=str(description.lineage.get(PARENT) or "") or None if description else None,
        made=milliseconds(description.created) if description else None,
        cell=description.config.cell if description else None,
        hidden=description.config.hidden if description else None,
        items=description.items if description else None,
        metrics=_json(description.metrics) if description else {},
        lineage=_json(description.lineage) if description else {},
        decision=None if decision is None else _decision(decision),
        share=shares[id_].percent / 100 if id_ in shares else 0.0,
        epoch=None if at is None else at.epoch,
        loaded=loaded,
        problem=problem,
        live=None if counted is None else live_ranks(counted.sum(axis=1)),
        difference_to_first=_difference(id_, shares, newest, ranks),
    )


def _difference(id_: str, shares: Mapping[str, Share], newest: int | None, ranks: Ranks) -> Difference | None:
    """Of a version with a share of the users to the one with the greatest, when enough was ranked."""
    if newest is None or len(shares) < 2 or id_ not in shares:
        return None
    first = max(shares.values(), key=lambda share: share.percent)
    if first.version == id_:
        return None
    version, live = (group_sums(ranks.all_of(RankedBy(newest, name))) for name in (id_, first.version))
    finding = SequentialTest(ERROR).look(1.0, version, live)
    if not (math.isfinite(finding.low) and math.isfinite(finding.high)):
        return None
    mean, low, high = np.round([finding.difference, finding.low, finding.high], 5).tolist()
    return Difference(METRIC, mean, (low, high))


def _decision(decision: Decision) -> DecisionAbout:
    figures = _json(decision.figures)
    metric, difference, interval = _deciding(figures)
    return DecisionAbout(
        kind=decision.kind,
        live=decision.kind in MADE_LIVE,
        reason=decision.reason,
        decided_by=decision.decided_by,
        decided_at=milliseconds(decision.decided_at),
        epoch=decision.epoch,
        metric=metric,
        difference=difference,
        interval=interval,
        figures=figures,
    )


def _deciding(figures: Mapping[str, Any]) -> tuple[str | None, float | None, tuple[float, float] | None]:
    """The metric, the difference and its interval that a decision rests on, where its figures have them:
    those of a canary (`eddy.stream.canary.trial`), or of a refresh's judgement.
    """
    if "difference" in figures:
        metric: object = METRIC
        found = [figures.get(name) for name in ("difference", "low", "high")]
    else:
        judgement = figures.get("judgement")
        judgement = judgement if isinstance(judgement, dict) else {}
        gains = judgement.get("gains")
        gain = gains.get("live") if isinstance(gains, dict) else None
        gain = gain if isinstance(gain, dict) else {}
        metric, found = judgement.get("metric"), [gain.get(name) for name in ("mean", "low", "high")]
    difference, low, high = (float(each) if isinstance(each, int | float) else None for each in found)
    interval = None if low is None or high is None else (low, high)
    return metric if isinstance(metric, str) else None, difference, interval


def _json(values: Mapping[str, Any]) -> dict[str, Any]:
    """What anybody may have written into a version's folder, as JSON has it."""
    plain_values: dict[str, Any] = msgspec.to_builtins(values, enc_hook=plain, str_keys=True)
    return plain_values


__all__ = ["overview"]
