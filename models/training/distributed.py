"""Several processes that train one model, as `torchrun` starts them: GPUs or cores, on one machine or many.

Each process has its share of every batch's users, and keeps their states; DistributedDataParallel averages
the gradients (Li et al., VLDB 2020, arXiv:2006.15704), so the weights are the same everywhere. Work that only
one process can do (fitting gates in time order, writing files) is done by the first, which tells the others.

torchrun ends all processes as soon as one of them fails. So no process leaves the group before the first has
written everything: the others wait for it in `Group.wait_for_first`.
"""

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eddy.models.errors import EddyError

T = TypeVar("T")
Number = TypeVar("Number", bound=np.generic)

PATIENCE = timedelta(hours=2)
"""Longest time that the others wait while the first process fits the gates; a process that ended is noticed
at once.
"""

_WITHOUT_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}
"""Buffers are the same in all processes, and nothing changes them in training. The setting that says so has
another name in newer versions of torch, which warn of the former one.
"""


@dataclass(frozen=True)
class Group:
    """This process's view of the group: it is number `rank` of `size`. In a group of one all methods return
    at once.
    """

    rank: int = 0
    size: int = 1
    device: str | None = None
    """where this process computes; None leaves it to the settings"""

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over the group in the backward pass."""
        if self.size == 1:
            return module
        # The gates are in the module but not in its loss.
        return DistributedDataParallel(
            module, find_unused_parameters=True, gradient_as_bucket_view=True, **_WITHOUT_BUFFERS
        )

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors."""
        if self.size == 1:
            return tensor
        there = tensor.to(self.device or tensor.device, copy=True)  # NCCL sums on GPUs only
        dist.all_reduce(there)
        return there.to(tensor.device)

    def total(self, array: NDArray[Number]) -> NDArray[Number]:
        """The sum of all processes' arrays."""
        return array if self.size == 1 else self.sum(torch.from_numpy(array)).numpy()

    def concatenated(self, tensor: Tensor) -> Tensor:
        """All processes' tensors [n], whose lengths may differ, one after the other."""
        if self.size == 1:
            return tensor
        device = self.device or "cpu"
        lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(tensor)], device=device))
        counts = [int(length) for length in lengths]
        # Rooms of one size: not all backends gather tensors of different lengths.
        room = torch.zeros(max(counts), dtype=tensor.dtype, device=device)
        room[: len(tensor)] = tensor
        rooms = [torch.empty_like(room) for _ in counts]
        dist.all_gather(rooms, room)
        parts = [part[:count] for part, count in zip(rooms, counts, strict=True)]
        return torch.cat(parts).to(tensor.device)

    def concatenated_array(self, array: NDArray[Number]) -> NDArray[Number]:
        """The same of arrays."""
        return array if self.size == 1 else self.concatenated(torch.from_numpy(array)).numpy()

    def each(self, number: int) -> NDArray[np.int64]:
        """The numbers of all processes: int64[size]."""
        return self.concatenated_array(np.array([number]))

    def of_all(self, value: T) -> list[T]:
        """The values of all processes."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def to_first(self, value: T) -> list[T] | None:
        """In the first process the values of all; None in the others."""
        if self.size == 1:
            return [value]
        box: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(value, box)
        return box

    def from_first(self, value: T) -> T:
        """The value that the first process passed."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait_for_first(self) -> None:
        """Return when the first process has called this, too: its files are complete then.

        Errors: EddyError, from `process_group`, when the first process ended before.
        """
        self.from_first(None)

    def copy_weights_of_first(self, module: nn.Module) -> None:
        """Overwrite the module's weights with those of the first process."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)


ALONE = Group()


def started_by_torchrun() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_torchelastic_launched()


@contextmanager
def process_group(device: str) -> Iterator[Group]:
    """The group that torchrun started this process in, computing on `device`: a "cuda" becomes the GPU of the
    process's own number on its machine. Without torchrun, a group of one.

    Errors: EddyError when there is no such device, and when another process of the group ended.
    """
    if not started_by_torchrun():
        require_device(device)
        yield ALONE
        return
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    on_gpu = device.startswith("cuda")
    if on_gpu:
        if local >= torch.cuda.device_count():
            raise EddyError(
                f"torchrun: process {local} of this machine has no GPU of its own, there are "
                f"{torch.cuda.device_count()}: give --nproc-per-node so many, or --set device=cpu"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield Group(rank, size, f"cuda:{local}" if on_gpu else None)
        # Leave together. Whoever is here has done all of its work: a process that is gone is no error.
        with suppress(RuntimeError):
            dist.barrier()
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise EddyError(
            f"training: process {rank} of {size} lost the others: one of them ended, and its message, or "
            "torchrun's report, says why; with --checkpoint the same command goes on from the last epoch"
        ) from None
    finally:
        dist.destroy_process_group()


def require_device(device: str) -> None:
    """Errors: EddyError when torch cannot compute on this device, or has none of this name."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise EddyError(f"--set device={device}: torch cannot compute there ({reason}); give cpu") from None


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether another process is gone. Gloo has no exception type of its own for it."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
