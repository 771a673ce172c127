"""Values that JSON has no form for, as plain ones: what encoders call for a value that they do not know, and
an encoder of files that people read.
"""

import json
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


def lines_of_json(value: Any) -> str:
    """JSON in ASCII, over several lines. Infinity and NaN, which Python writes, but JSON does not have and
    strict readers refuse, are null.

    Errors: TypeError for a value that `plain` does not know.
    """
    finite = json.loads(json.dumps(value, default=plain), parse_constant=lambda _: None)
    return json.dumps(finite, indent=1)
