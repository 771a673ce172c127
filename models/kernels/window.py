"""Recent windows by columns: the one form that compiled loops and the network share."""

from typing import Generic, NamedTuple, TypeVar

Column = TypeVar("Column")


class Window(NamedTuple, Generic[Column]):
    """The last W events of B users, oldest first, left-aligned, and O distinct items from before them.

    Columns are arrays where compiled loops fill or read them and tensors for the network
    (`eddy.models.tensors.Window`): numba knows no tensors. On the CPU both are the same memory.
    """

    item: Column  # int64[B,W] catalogue index, -1 = padding
    timestamp: Column  # int64[B,W] ms
    type: Column  # int64[B,W] 0 … T, as in `eddy.models.tensors.Inputs`
    negative: Column  # bool[B,W]
    length: Column  # int64[B]
    older: Column  # int[B,O] catalogue index, latest first, -1 = padding; O as large as the batch needs
