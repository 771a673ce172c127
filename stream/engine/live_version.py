"""One model version applied to the slab: what the cell is fed, and states encoded anew from anchor and
window.

Everything fed to the cell follows from an event's own fields, the time of the event before it, and the
version, so a row is a function of its records and its version.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.growable import Growable
from eddy.models.hashing import item_hash
from eddy.models.registry import Version
from eddy.models.rules import MOVES, NEGATIVE, TARGET, Flags
from eddy.models.tensors import Inputs, to_device
from eddy.models.vocabulary import MAX_TYPES, Catalogue
from eddy.stream.kernels.waves import Waves, pack
from eddy.stream.kernels.window_loops import VersionTables
from eddy.stream.state.rows import NO_TIME
from eddy.stream.state.slab import HALF, Slab, Slots

_ROWS_AT_ONCE = 4096  # rows encoded anew together: bounds the memory of their windows


class LiveVersion:
    """A model version at an epoch, bound to the catalogue's numbers of items and event types."""

    def __init__(self, version: Version, epoch: int, catalogue: Catalogue, device: torch.device) -> None:
        self.version = version
        self.epoch = epoch
        self.version_hash = item_hash(version.id)
        self.recommender = version.recommender.to(device).eval()
        self.device = device
        self._catalogue = catalogue
        # Types that the version or its rules name get their numbers now. Every other number, of whichever
        # type, stands for an unknown type that no rule names.
        self._rules, row_of = version.rules.table()
        rules_of = np.full(MAX_TYPES, len(self._rules) - 1)
        rules_of[catalogue.types.name(list(row_of))] = list(row_of.values())
        types = version.vocabulary.types
        type_input = np.full(MAX_TYPES, len(types))
        type_input[catalogue.types.name(types)] = np.arange(len(types))
        self._numbering = catalogue.renumbered
        self.tables = VersionTables(type_input, (self._rules & NEGATIVE) > 0, rules_of)
        self._item_input = Growable(np.zeros(0, np.int64))

    @property
    def state_size(self) -> int:
        """S, floats per state."""
        return self.recommender.state_size

    def _item_inputs(self, item: NDArray[np.int32]) -> NDArray[np.int64]:
        """The cell's input indices of items (catalogue indices), in the shape given."""
        if self._numbering != self._catalogue.renumbered:
            self._numbering, self._item_input = self._catalogue.renumbered, Growable(np.zeros(0, np.int64))
        looked_up = len(self._item_input)
        if looked_up < len(self._catalogue):
            new = self._catalogue.hashes[looked_up:]
            self._item_input.append(self.version.vocabulary.input_index(new))
        return self._item_input.now[item]

    def flags(self, type_: NDArray[np.uint16], value: NDArray[np.float16]) -> Flags:
        """What the rules that the version was trained with say of events, in the shape given."""
        rules = self._rules[self.tables.rules_of[type_], value.view(np.uint16)]
        return Flags((rules & MOVES) > 0, (rules & TARGET) > 0, (rules & NEGATIVE) > 0)

    def inputs(
        self,
        item: NDArray[np.int32],
        type_: NDArray[np.uint16],
        negative: NDArray[np.bool_],
        gap: NDArray[np.float32],
    ) -> Inputs:
        """Cell inputs of n events; `gap` is ms since the user's event before, -1 for a first event."""

        def tensor(column: NDArray[np.generic]) -> torch.Tensor:
            return to_device(column, self.device)

        return Inputs(
            item=tensor(self._item_inputs(item)),
            type=tensor(self.tables.type_input[type_]),
            negative=tensor(negative),
            gap_ms=tensor(gap),
        )

    def move_states(
        self, inputs: Inputs, waves: Waves, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move states [u, S] (users in the waves' order) through packed inputs [n]; returns the outputs
        [n, H] and the states [u, S] after them.
        """
        return self.recommender.packed(inputs, torch.from_numpy(waves.batch_sizes), state)

    def window_inputs(
        self, slab: Slab, slot: Slots, entry: Slots, anchored: bool = True
    ) -> tuple[Inputs, NDArray[np.float32]]:
        """Cell inputs of the entries[n] of the windows of slots[n], and the time from the event before each,
        ms, -1 = none. anchored: whether the anchor is what comes before the first entry.
        """
        time = slab.time[slot, entry]
        first = slab.anchor_time[slot] if anchored else NO_TIME
        before = np.where(entry > 0, slab.time[slot, np.maximum(entry - 1, 0)], first)
        type_ = slab.type[slot, entry]
        negative = self.flags(type_, slab.value[slot, entry]).negative
        gap = np.where(before == NO_TIME, -1, time - before).astype(np.float32)
        return self.inputs(slab.item[slot, entry], type_, negative, gap), gap

    def recompute(
        self, slab: Slab, slots: Slots, begin: Slots, end: Slots, state: torch.Tensor
    ) -> torch.Tensor:
        """States [m, S] after window entries `begin` (included) … `end` (excluded) of each row, from
        `state` [m, S].
        """
        result = state.clone()
        busy = np.flatnonzero(end > begin)  # rows with entries to go through
        for start in range(0, len(busy), _ROWS_AT_ONCE):
            # 1. The entries of some rows as waves.
            chosen = busy[start : start + _ROWS_AT_ONCE]
            waves = pack(np.zeros(len(chosen), np.int64), (end - begin)[chosen])
            chosen = chosen[waves.user]
            slot = slots[chosen][waves.lane]
            entry = begin[chosen][waves.lane] + waves.rank
            # 2. What the cell is fed for each.
            inputs, _ = self.window_inputs(slab, slot, entry)
            # 3. The states after them.
            row = to_device(chosen, self.device)
            _, result[row] = self.move_states(inputs, waves, state[row])
        return result

    def recompute_rows(self, slab: Slab, slots: Slots) -> None:
        """Encode the hidden states of rows, and those after HALF entries, anew from their anchors and
        windows.
        """
        length = slab.length[slots].astype(np.int64)
        half = np.minimum(length, HALF)
        row = to_device(slots, self.device)
        midpoint = self.recompute(slab, slots, np.zeros_like(half), half, slab.anchor[row])
        long = to_device(np.flatnonzero(length >= HALF), self.device)
        slab.midpoint_state[row[long]] = midpoint[long]
        slab.midpoint_known[slots] = length >= HALF
        slab.hidden[row] = self.recompute(slab, slots, half, length, midpoint)

    def reencode(self, slab: Slab, slots: Slots) -> None:
        """Move rows of older epochs to this version: zero anchor, states encoded anew from the window."""
        anchored = slots[slab.anchor_time[slots] != NO_TIME]  # memory of the others was never written
        slab.anchor[to_device(anchored, self.device)] = 0.0
        slab.anchor_time[slots] = NO_TIME
        with torch.inference_mode():
            self.recompute_rows(slab, slots)
        slab.epoch[slots] = self.epoch
