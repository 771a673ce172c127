"""Training that survives a kill: one file with all that the next epoch depends on, replaced whole after every
epoch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eddy.models.atomic_files import atomic_write, try_writing
from eddy.models.errors import EddyError


class OtherRun(EddyError):
    """A training checkpoint is of a run with other events or settings."""


@dataclass
class TrainingState:
    """All that training depends on, after `epoch` epochs of the first phase."""

    epoch: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]  # the running average of weights; empty when there is none
    averaged: int  # optimiser steps in the average
    best_weights: dict[str, Tensor]
    best_loss: float
    best_epoch: int
    optimizer: dict[str, Any]
    curve: list[dict[str, float]]


def require_checkpoint(path: Path | None) -> None:
    """Check that a training checkpoint could be written to a file, if one is given, before the first epoch,
    which may take hours. Its folder is made if missing. Errors: EddyError when it could not.
    """
    if path is None:
        return
    try:
        try_writing(path.parent)
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
    except OSError as error:
        raise EddyError(
            f"{path}: no checkpoint could be written ({error}); check path and permissions"
        ) from None


def save_training_state(path: Path, state: TrainingState, identity: str) -> None:
    """Replace the file by this state; `identity` names the run that may go on from it.

    Errors: EddyError when it cannot be written; the former state stays then.
    """
    try:
        # A file opened here, as torch tells less of a failed write to a path than of one to a file.
        with atomic_write(path) as draft, draft.open("wb") as file:
            torch.save({"identity": identity, **vars(state)}, file)
    except (OSError, RuntimeError) as error:  # torch's own word for a failed write is a RuntimeError
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise EddyError(f"{path}: cannot be written ({reason}); check space and permissions") from None


def load_training_state(path: Path, identity: str) -> TrainingState | None:
    """The saved state; None when there is none.

    Errors: EddyError for a damaged file, OtherRun for one of another run.
    """
    if not path.exists():
        return None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        stored_identity = stored.pop("identity")
        state = TrainingState(**stored)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise EddyError(f"{path}: not a training checkpoint ({type(error).__name__}); delete it") from None
    if stored_identity != identity:
        raise OtherRun(f"{path}: from a run with other events or settings; delete it or name another file")
    return state
