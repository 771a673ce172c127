"""The slab: the rows of a worker's partitions (or of a server's view), column by column; a user is a slot in
it.

Windows and bookkeeping are numpy arrays on the host; states are torch tensors on the model's device. The
slots of removed rows are used again. Columns are allocated untouched and grow by copying one at a time, so a
column that young users never write (anchor, midpoint state, event ids) costs no memory until a row writes it.
Growing stops the stream (1.4 s at 262,144 rows), so there is room for all from the beginning where the system
allows that.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.tensors import to_device
from eddy.models.vocabulary import Catalogue
from eddy.stream.kernels.filled_prefix import filled_lengths, take_prefix
from eddy.stream.kernels.window_loops import Windows
from eddy.stream.records.columns import select_entries
from eddy.stream.state.catalogue_indices import CatalogueIndices, look_up
from eddy.stream.state.rows import NO_TIME, OLDER, WINDOW, Rows
from eddy.stream.state.sampling import group_of, in_sample

HALF = WINDOW // 2
NO_OFFSET = -1

COLUMN_SHARE = 0.5
"""Share of the machine's memory that the widest column has room for from the beginning on a CPU: untouched
memory costs nothing, and a worker will not have more rows than fit.
"""

LEAST_ROWS = 1 << 17
"""Room in rows on a CPU whose system promises no more memory than it has."""

DEVICE_ROWS = 1024
"""Room in rows from the beginning on another device, where memory is taken at once."""

Slots = NDArray[np.int64]

_COLUMNS: dict[str, tuple[Any, tuple[int, ...], Any]] = {
    "partition": (np.int32, (), -1),
    "offset": (np.int64, (), NO_OFFSET),
    "applied": (np.uint32, (), 0),
    "digest": (np.uint64, (), 0),
    "epoch": (np.uint32, (), 0),
    "anchor_time": (np.int64, (), NO_TIME),
    "length": (np.uint8, (), 0),
    "midpoint_known": (np.bool_, (), False),
    "sampled": (np.bool_, (), False),
    "group": (np.uint8, (), 0),
    "item": (np.int32, (WINDOW,), None),
    "time": (np.int64, (WINDOW,), None),
    "type": (np.uint16, (WINDOW,), None),
    "value": (np.float16, (WINDOW,), None),
    "event_id": (np.uint64, (WINDOW,), 0),
    "older": (np.int32, (OLDER,), 0),
    "older_count": (np.uint16, (), 0),
    "scratch": (np.int32, (), 0),
}
_STATES = ("hidden", "anchor", "midpoint_state")


class Slab:
    """Rows by slot; see `eddy.stream.state.rows.Rows` for what the columns mean.

    These columns differ from a stored row's. `item` holds catalogue indices instead of hashes, `older` these
    plus one (0 = none, so that a column of zeros names no items), and `type` the catalogue's numbers of event
    types. `midpoint_state` is the state after the first HALF entries of the window, which becomes the anchor
    when the window is full; it is not stored, so after a restore `midpoint_known` is False until the state is
    needed and encoded anew. `sampled` says whether the user's events are ranked for prequential metrics, and
    `group` in which group of users these ranks are counted (0 for all who are not sampled).
    `older_count` is how many of `older` are in use, and `scratch` is zero except inside a compiled loop.
    """

    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    applied: NDArray[np.uint32]
    digest: NDArray[np.uint64]
    epoch: NDArray[np.uint32]
    anchor_time: NDArray[np.int64]
    length: NDArray[np.uint8]
    midpoint_known: NDArray[np.bool_]
    sampled: NDArray[np.bool_]
    group: NDArray[np.uint8]
    item: NDArray[np.int32]
    time: NDArray[np.int64]
    type: NDArray[np.uint16]
    value: NDArray[np.float16]
    event_id: NDArray[np.uint64]
    older: NDArray[np.int32]
    older_count: NDArray[np.uint16]
    scratch: NDArray[np.int32]
    hidden: torch.Tensor
    anchor: torch.Tensor
    midpoint_state: torch.Tensor

    def __init__(
        self,
        state_size: int,
        device: torch.device | str = "cpu",
        sample: float = 0.0,
        capacity: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._sample = sample
        self.slot_of: dict[str, int] = {}
        self.user_of: list[str | None] = []
        self._free: list[int] = []
        if capacity is not None:
            self._allocate(capacity, state_size)
        elif self.device.type != "cpu":
            self._allocate(DEVICE_ROWS, state_size)
        else:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            rows = int(memory * COLUMN_SHARE) // (4 * max(state_size, OLDER))
            try:
                self._allocate(max(rows, LEAST_ROWS), state_size)
            except MemoryError:
                self._allocate(LEAST_ROWS, state_size)

    def __len__(self) -> int:
        return len(self.slot_of)

    @property
    def state_size(self) -> int:
        """S, floats per state."""
        return self.hidden.shape[1]

    def _allocate(self, capacity: int, state_size: int) -> None:
        self._capacity = capacity
        for name, (dtype, shape, _) in _COLUMNS.items():
            setattr(self, name, np.zeros((capacity, *shape), dtype))
        for name in _STATES:
            setattr(self, name, self._zeros((capacity, state_size)))

    def _zeros(self, shape: tuple[int, ...]) -> torch.Tensor:
        if self.device.type == "cpu":  # numpy's zeros are untouched pages; torch's are written
            return torch.from_numpy(np.zeros(shape, np.float32))
        return torch.zeros(shape, device=self.device)

    def reserve(self, users: int) -> None:
        """Make room for so many users at once; on a CPU, room that is never written costs no memory."""
        if users > self._capacity:
            self._grow(users)

    def _grow(self, capacity: int) -> None:
        old, self._capacity = self._capacity, max(capacity, self._capacity * 2)
        for name, (dtype, shape, _) in _COLUMNS.items():
            column = np.zeros((self._capacity, *shape), dtype)
            _copy_written(column, getattr(self, name))
            setattr(self, name, column)
        for name in _STATES:
            state, before = self._zeros((self._capacity, self.state_size)), getattr(self, name)
            if self.device.type == "cpu":
                _copy_written(state.numpy(), before.numpy())
            else:
                state[:old] = before
            setattr(self, name, state)

    def slots_of(self, users: Sequence[str]) -> Slots:
        """Slots int64[n] of `users`, -1 for those without a row."""
        get = self.slot_of.get
        return np.fromiter((get(user, -1) for user in users), np.int64, len(users))

    def add_users(
        self,
        users: Sequence[str],
        partition: NDArray[np.int32],
        epoch: int,
        keys: Sequence[bytes] | None = None,
    ) -> Slots:
        """Add empty rows at `epoch` for distinct new users. Returns their slots, int64[n], which are
        consecutive unless slots are used again.

        `keys`: the users in UTF-8, where the caller has them.
        """
        n = len(users)
        reused = [self._free.pop() for _ in range(min(n, len(self._free)))]
        start = len(self.user_of)
        needed = start + n - len(reused)
        if needed > self._capacity:
            self._grow(needed)
        slots = np.array(reused + list(range(start, needed)), np.int64)
        self.slot_of.update(zip(users, slots.tolist(), strict=True))
        for user, slot in zip(users, reused, strict=False):
            self.user_of[slot] = user
        self.user_of.extend(users[len(reused) :])
        if reused:
            self._clear(np.array(reused, np.int64))
        self.offset[start:needed] = NO_OFFSET
        self.anchor_time[start:needed] = NO_TIME
        self.partition[slots] = partition
        self.epoch[slots] = epoch
        keys = keys or [user.encode() for user in users]
        sampled = in_sample(keys, self._sample)
        self.sampled[slots] = sampled
        ranked = np.flatnonzero(sampled)
        self.group[slots[ranked]] = group_of([keys[i] for i in ranked.tolist()])
        return slots

    def _clear(self, slots: Slots) -> None:
        for name, (_, _, empty) in _COLUMNS.items():
            if empty is not None:
                getattr(self, name)[slots] = empty
        index = to_device(slots, self.device)
        for name in _STATES:
            getattr(self, name)[index] = 0.0

    def remove_rows(self, slots: Slots) -> None:
        """Forget rows; their slots will be used again."""
        for slot in slots.tolist():
            user = self.user_of[slot]
            if user is not None:
                del self.slot_of[user]
                self.user_of[slot] = None
                self._free.append(slot)
        self.partition[slots] = -1

    def of_partition(self, partition: int) -> Slots:
        """Slots of all rows of one partition."""
        return np.flatnonzero(self.partition[: len(self.user_of)] == partition)

    def last_time(self, slots: Slots) -> NDArray[np.int64]:
        """Time in ms of each row's last event (NO_TIME for an empty row): int64[n]."""
        length = self.length[slots].astype(np.int64)
        return np.where(length > 0, self.time[slots, np.maximum(length - 1, 0)], self.anchor_time[slots])

    def mentioned(self, items: int) -> NDArray[np.bool_]:
        """Which of the catalogue's first `items` items the rows name: bool[items]."""
        mentioned = np.zeros(items, np.bool_)
        for slots in self._blocks():
            window = np.arange(WINDOW) < self.length[slots][:, None]
            mentioned[self.item[slots][window]] = True
            older = self._older(slots)[1]
            mentioned[older[older > 0] - 1] = True
        return mentioned

    def renumber(self, place: NDArray[np.int64]) -> None:
        """Give items other numbers: place[N] of each, -1 for those that left, which no row names."""
        one_more = np.concatenate(([0], place + 1)).astype(np.int32)
        for slots in self._blocks():
            window = np.arange(WINDOW) < self.length[slots][:, None]
            item = self.item[slots]
            item[window], item[~window] = place[item[window]], 0
            self.item[slots] = item
            with_older, older = self._older(slots)
            self.older[with_older, : older.shape[1]] = one_more[older]

    def _blocks(self, rows: int = 4096) -> list[Slots]:
        """The slots of all rows, so many at a time that copies of their columns stay small."""
        slots = np.flatnonzero(self.partition[: len(self.user_of)] >= 0)
        return [slots[start : start + rows] for start in range(0, len(slots), rows)]

    def _older(self, slots: Slots) -> tuple[Slots, NDArray[np.int32]]:
        """The rows among `slots` that name older items, and these items: the memory of the others may never
        have been written, and stays so.
        """
        count = self.older_count[slots]
        slots = slots[count > 0]
        return slots, self.older[slots, : int(count.max(initial=0))]

    def windows(self) -> Windows:
        """The columns that compiled loops change; valid until the slab grows."""
        return Windows(
            self.length, self.anchor_time, self.item, self.time, self.type, self.value.view(np.uint16),
            self.event_id, self.older, self.older_count,
        )  # fmt: skip

    # Station 9: rows leave memory as a copy, to be encoded beside the next batches.
    def export_rows(
        self, slots: Slots, catalogue: Catalogue, topic_id: bytes, version: dict[int, int]
    ) -> Rows:
        """A copy of rows in the form that is stored; `version` maps an epoch to the hash of its version's
        id.
        """
        length = self.length[slots]
        index = to_device(slots, self.device)
        epoch = self.epoch[slots]
        epochs, number = np.unique(epoch, return_inverse=True)
        hashes = np.array([version[e] for e in epochs.tolist()], np.uint64)[number]
        older_count = self.older_count[slots].astype(np.int64)
        return Rows(
            user=[(self.user_of[slot] or "").encode() for slot in slots.tolist()],
            epoch=epoch,
            version=hashes,
            topic_id=topic_id,
            partition=self.partition[slots],
            offset=self.offset[slots],
            applied=self.applied[slots],
            digest=self.digest[slots],
            anchor_time=self.anchor_time[slots],
            hidden=self.hidden[index].cpu().numpy(),
            anchor=self.anchor[index].cpu().numpy(),
            length=length,
            item=take_prefix(self.item, slots, catalogue.hashes, length.astype(np.int64), WINDOW),
            time=self.time[slots],
            type=take_prefix(self.type, slots, catalogue.types.hashes, length.astype(np.int64), WINDOW),
            value=self.value[slots],
            event_id=self.event_id[slots],
            older=take_prefix(
                self.older, slots, catalogue.hashes, older_count, int(older_count.max(initial=0)), first=1
            ),
        )

    def load_rows(self, rows: Rows, catalogue: Catalogue, indices: CatalogueIndices | None = None) -> Slots:
        """Take rows (distinct users) as they were stored; one that the slab's row is ahead of is ignored.
        `indices`: the rows' items and types, where the caller has looked them up already.

        States of another size than the slab's are left zero: such rows wait to be encoded for the model in
        use. Returns the slots written, int64[m].
        """
        if not len(rows.user):
            return np.zeros(0, np.int64)
        # 1. Slots, of the rows that are not behind those that are here.
        users = [user.decode() for user in rows.user]
        if self.slot_of.keys().isdisjoint(users):
            slots = self.add_users(users, rows.partition, 0, rows.user)
        else:
            slots = self.slots_of(users)
            absent = np.flatnonzero(slots < 0)
            slots[absent] = self.add_users([users[i] for i in absent.tolist()], rows.partition[absent], 0)
        behind = self.is_ahead(slots, rows)
        if behind.any():
            newer = np.flatnonzero(~behind)
            slots, rows = slots[newer], select_entries(rows, newer)
            indices = None if indices is None else select_entries(indices, newer)
        if not len(slots):
            return slots
        # 2. Columns. Slots of new users follow each other: then whole slices are copied instead of single
        # rows.
        at = slice(int(slots[0]), int(slots[0]) + len(slots)) if np.all(np.diff(slots) == 1) else slots
        had_anchor = self.anchor_time[at] != NO_TIME
        for name in (
            "partition", "offset", "applied", "digest", "epoch", "anchor_time", "length", "time", "value",
        ):  # fmt: skip
            getattr(self, name)[at] = getattr(rows, name)
        if rows.event_id.any() or self.event_id[at].any():  # a column that nobody uses costs no memory
            self.event_id[at] = rows.event_id
        if indices is None or indices.numbering != catalogue.renumbered:
            indices = look_up(rows, catalogue)
        self.item[at], self.type[at] = indices.item, indices.type
        width = indices.older.shape[1]
        self.older[slots[self.older_count[at] > width], width:] = 0  # what no row uses names no items
        self.older[at, :width] = indices.older
        self.older_count[at] = filled_lengths(indices.older)
        # 3. States.
        self.midpoint_known[at] = False
        if rows.hidden.shape[1] == self.state_size:
            self._write_states(self.hidden, at, rows.hidden)
            anchored = np.flatnonzero((rows.anchor_time != NO_TIME) | had_anchor)
            self._write_states(self.anchor, slots[anchored], rows.anchor[anchored])
        return slots

    def is_ahead(self, slots: Slots, rows: Rows) -> NDArray[np.bool_]:
        """Whether the rows in slots[n] are ahead of stored rows [n] of the same users, bool[n]: by a higher
        offset of the same partition, or by a newer epoch at the same offset.
        """
        offset, epoch = self.offset[slots], self.epoch[slots]
        ahead = (offset > rows.offset) | ((offset == rows.offset) & (epoch > rows.epoch))
        return np.asarray(ahead & (self.partition[slots] == rows.partition), np.bool_)

    def take_rows(self, other: "Slab", slots: Slots) -> Slots:
        """Take rows over from another slab, which forgets them, but for their states: these are zero here,
        and to be encoded. Returns their slots.
        """
        users = [other.user_of[slot] or "" for slot in slots.tolist()]
        at = self.add_users(users, other.partition[slots], 0)
        for name in (
            "offset", "applied", "digest", "epoch", "anchor_time", "length", "sampled", "group", "item",
            "time", "type", "value", "older_count",
        ):  # fmt: skip
            getattr(self, name)[at] = getattr(other, name)[slots]
        event_id = other.event_id[slots]
        if event_id.any():  # a column that nobody uses costs no memory
            self.event_id[at] = event_id
        _, older = other._older(slots)
        self.older[at[other.older_count[slots] > 0], : older.shape[1]] = older
        other.remove_rows(slots)
        return at

    def _write_states(self, states: torch.Tensor, at: slice | Slots, values: NDArray[np.float32]) -> None:
        if self.device.type == "cpu":
            states.numpy()[at] = values
        else:
            states[at] = to_device(values, self.device)


def _copy_written(new: NDArray[Any], old: NDArray[Any], block: int = 4096) -> None:
    """Copy `old` to the head of `new`, leaving blocks that are all zero untouched."""
    for start in range(0, len(old), block):
        part = old[start : start + block]
        if part.any():
            new[start : start + len(part)] = part
