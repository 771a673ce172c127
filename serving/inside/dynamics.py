"""How a version's cell behaves on the windows of stored users: measured once, and kept as long as the version
is loaded.
"""

import asyncio
from collections.abc import Sequence

import torch

from eddy.models.network.inside import gradient_flow, look_inside, spectral_radius
from eddy.models.network.recommender import Recommender
from eddy.serving.inside.answers import Dynamics
from eddy.serving.inside.trace import ranker_of, rounded
from eddy.serving.inside.windows import longest_windows
from eddy.serving.threads import Threads
from eddy.serving.view import MaterialisedView
from eddy.stream.engine.cell_windows import CellWindow

HORIZON_USERS = 8
"""Windows on which horizons are measured: without gates each takes as many products of matrices as it has
events.
"""

FEW_USERS = 32
"""What was measured on fewer windows is measured again when more is asked: the version is still new."""

MAX_KEPT = 32
"""Versions whose dynamics are kept."""


class MeasuredDynamics:
    """What was measured, by version; one measurement at a time."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._measured: dict[str, Dynamics] = {}
        self._lock = asyncio.Lock()

    async def of(self, version: str) -> Dynamics:
        """The dynamics of a loaded version. Errors: NotHere."""
        async with self._lock:
            known = self._measured.get(version)
            if known is not None and known.users >= FEW_USERS:
                return known
            recommender, windows = await self._threads.look_up(lambda view: _copy(view, version))
            if known is None or len(windows) > known.users:
                known = await self._threads.beside(lambda: _measure(version, recommender, windows))
            self._measured[version] = known
            if len(self._measured) > MAX_KEPT:
                del self._measured[next(iter(self._measured))]
            return known


def _copy(view: MaterialisedView, version: str) -> tuple[Recommender, list[CellWindow]]:
    _, ranker = ranker_of(view, version)
    return ranker.live.recommender, longest_windows(view, ranker.live)


def _measure(version: str, recommender: Recommender, windows: Sequence[CellWindow]) -> Dynamics:
    """Measure on windows, the longest first."""
    cell, config = recommender.cell, recommender.config
    flow, horizon = torch.zeros(0), torch.zeros(0)
    longest = max((len(window.gap_ms) for window in windows), default=0)
    if windows:
        with torch.inference_mode():
            read = [recommender.inputs(window.inputs) for window in windows]
            seen = [
                look_inside(cell, x, window.state)
                for x, window in zip(read[:HORIZON_USERS], windows[:HORIZON_USERS], strict=True)
            ]
            horizon = torch.stack([each.horizon for each in seen]).mean(dim=0)
            x = torch.nn.utils.rnn.pad_sequence(read, batch_first=True)
        lengths = torch.tensor([len(window.gap_ms) for window in windows])
        flow = gradient_flow(cell, x, torch.stack([window.state for window in windows]), lengths)
    return Dynamics(
        version=version,
        cell=config.cell,
        hidden=config.hidden,
        layers=config.layers,
        users=len(windows),
        window=longest,
        gradient_flow=[float(f"{value:.4g}") for value in flow.tolist()],
        horizon=rounded(horizon),
        spectral_radius=spectral_radius(cell),
    )
