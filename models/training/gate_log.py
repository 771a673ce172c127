"""The events that the gates are fitted on, and what is known from those before them, in one process.

In a group of processes, the first gets the histories of the users who have events there, from all processes,
and the item statistics that each of them made of its own users' events, as a worker gets those of the others'
partitions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eddy.models.config import ModelConfig
from eddy.models.logs.events import Events, items_in
from eddy.models.rules import EventRules
from eddy.models.training.group_log import GroupLog, gathered
from eddy.models.training.log_replay import Known
from eddy.models.training.log_statistics import LogStatistics
from eddy.models.training.sequences import sequences
from eddy.models.vocabulary import Vocabulary


@dataclass(frozen=True)
class GateLog:
    """A log whose events from row `first` on are ranked."""

    events: Events
    first: int
    trained: NDArray[np.bool_]
    """bool[items]: which items the network was trained on"""
    known: Known | None = None
    """from the events before that others have; None where all events are here"""


def gate_log(
    log: GroupLog, first: int, most: int, vocabulary: Vocabulary, config: ModelConfig, rules: EventRules
) -> GateLog | None:
    """The last `most` events of all processes, but none that the network was trained on; those before row
    `first` of each process. In all processes but the first, None.

    1. Find the row. 2. Make statistics of what comes before. 3. Bring users' histories together.
    """
    events, group = log.events, log.group
    trained = group.total(items_in(events, slice(0, first)).astype(np.int64)) > 0
    # 1. The row.
    first_of_all = log.total(first)
    row = max(first_of_all, log.rows - most)
    begin = int(log.own_rows(np.array([row]), first, first_of_all)[0][0])
    if group.size == 1:
        return GateLog(events, begin, trained)
    # 2. Statistics of this process's events before it.
    known = np.flatnonzero(group.total(items_in(events, slice(0, begin)).astype(np.int64)))
    data = sequences(events, vocabulary, rules, outside=True)
    learned = LogStatistics(events, data, config, rules)
    learned.add_items(known)
    learned.learn_until(begin)
    statistics = group.to_first(learned.statistics.export_partition(0, learned.catalogue.hashes))
    # 3. All events of the users who have any from it on.
    is_needed = np.zeros(len(events.users), np.bool_)
    is_needed[events.user[begin:]] = True
    needed = events.store.filled(len(events), np.bool_, lambda part: is_needed[events.user[part]])
    together = gathered(log, needed, begin)
    if together is None or statistics is None:
        return None
    return GateLog(*together, trained, Known(known, statistics))
