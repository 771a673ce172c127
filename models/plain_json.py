"""Values that JSON has no form for, as plain ones: what encoders call for a value that they do not know."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """What JSON holds for a number of numpy's, a path or a dataclass. Errors: TypeError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    return asdict(value)
