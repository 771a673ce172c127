"""What popularity alone predicted at each moment of the log: the network learns what to add to it.

Without it the network's biases and vectors would learn the popularities of the training months, which are
stale when the version is served. With it they learn who deviates from what is popular, and how.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eddy.models.config import ModelConfig
from eddy.models.hashing import item_hashes
from eddy.models.logs.column_store import slices
from eddy.models.rules import EventRules
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.popularity import log_shares
from eddy.models.training.group_log import GroupLog
from eddy.models.vocabulary import Vocabulary

MOMENTS = 512
"""Moments of the log at which popularities are taken, at most."""

MAX_FLOATS = 1 << 26
"""Floats of all moments together, at most (256 MB), as long as there are 16 moments."""


@dataclass(frozen=True)
class Prior:
    """The log of the mean of the moving popularities, as shares of all items, at G moments of the log."""

    log_p: Tensor  # float32[G,V]
    start: Tensor  # int64[G]: the row of the log that each moment is just before, increasing

    def moment_of(self, row: Tensor) -> Tensor:
        """The last moment not after each of these rows: int64[q]; the first one, where there is none."""
        return (torch.searchsorted(self.start, row.long(), right=True) - 1).clamp(min=0)


def prior_of(log: GroupLog, vocabulary: Vocabulary, config: ModelConfig, rules: EventRules) -> Prior | None:
    """The popularities of the vocabulary's V items along the log; None where the score has no popularity."""
    if not config.half_lives_ms:
        return None
    events, items = log.events, len(vocabulary)
    moments = int(min(MOMENTS, max(16, MAX_FLOATS // items), log.rows))
    index_of = vocabulary.input_index(item_hashes(events.items))
    starts = np.linspace(0, log.rows, moments + 1).astype(np.int64)[:-1]
    if not events.clock:  # without a clock there is one moment, after all events
        starts = np.array([log.rows])
    starts, times = log.own_rows(starts)
    statistics = Statistics(config.half_lives_ms, 1)

    def count(part: slice) -> None:
        index, flags = index_of[events.item[part]], events.flags_of(part, rules)
        counted = flags.moves & ~flags.negative & (index < items)
        nothing_before = np.zeros((int(counted.sum()), 0), np.int64)
        statistics.count_events(0, index[counted], events.timestamp[part][counted], nothing_before)

    log_p = torch.empty(len(starts), items)
    done = 0
    for g, start in enumerate(starts.tolist()):
        for part in slices(start, begin=done):
            count(part)
        done = start
        counts = log.group.total(statistics.popularity(items, float(times[g])))
        log_p[g] = torch.logsumexp(log_shares(counts), dim=1) - np.log(len(config.half_lives_ms))
    return Prior(log_p, torch.from_numpy(starts))
