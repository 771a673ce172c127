"""A description of the machine and the packages that a result was measured with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
)
_PACKAGES = (
    "torch", "numpy", "aiokafka", "faust-streaming", "msgspec", "lz4", "quixstreams", "confluent-kafka",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """Commit, date, processor with the flags that matter to products of matrices, and versions."""
    model, flags = _processor()
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _version(package: str) -> str | None:
    """The version of an installed package; some scripts need no other programs."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> tuple[str, set[str]]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), set()
    values: dict[str, str] = {}
    for line in info.read_text().splitlines():
        name, _, value = line.partition(":")
        values.setdefault(name.strip(), value.strip())
    flags = values.get("flags", values.get("Features", ""))
    return values.get("model name", platform.machine()), set(flags.split())


def _commit() -> str:
    """The measured commit, with a "+" if the working tree differs from it."""
    head = _git("rev-parse", "--short", "HEAD")
    return head + ("+" if _git("status", "--porcelain", "--", "*.py", "pyproject.toml") else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()
