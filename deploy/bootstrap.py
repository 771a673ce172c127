"""Sets up `.venv`: the project and what it needs, and Apache Kafka's jars, so that later runs work offline.

bootstrap.sh calls it with Python 3.11 or later; it uses the standard library only. Guarantee: a finished
set-up notes in `.venv/eddy-setup.json` from what it was made. If nothing of that has changed, nothing is
done; what an interruption left behind is made again. Every trap on a newcomer's machine is one line and
exit code 1.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "eddy-setup.json"
EXTRAS = ("dev", "local", "figures", "drift", "demo")
NEEDED_BYTES = 8_000_000_000
# CPU builds of torch come from a separate index, which some networks do not reach; this finds out fast.
PROBE = {"UV_HTTP_CONNECT_TIMEOUT": "3", "UV_HTTP_TIMEOUT": "5", "UV_HTTP_RETRIES": "0"}
PROBE_TIMEOUT_S = 10


class SetupError(Exception):
    """One line for the user: what is wrong and what to do."""


def set_up(extras: set[str]) -> None:
    """Makes `.venv` hold the project with these extras, unless it does already."""
    with (ROOT / "pyproject.toml").open("rb") as project:
        fcntl.flock(project, fcntl.LOCK_EX)  # two `make` at once take turns
        stamp = read_stamp()
        extras = extras | set(stamp.get("extras", []))
        wanted = {
            "root": str(ROOT),  # scripts in .venv hold absolute paths
            "pyproject": hashlib.sha256(project.read()).hexdigest(),
            "extras": sorted(extras),
        }
        if stamp == wanted and works(PYTHON):
            return
        check_platform()
        check_room()
        if stamp.get("root") != str(ROOT) or not works(PYTHON):
            make_environment()
        STAMP.write_text("{}")
        install(extras)
        fetch_kafka()
        STAMP.write_text(json.dumps(wanted))
        say("done; later runs need no network")


def read_stamp() -> dict[str, Any]:
    """From what the last set-up was made; empty when there was none or it was interrupted."""
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def works(python: Path) -> bool:
    """Whether this interpreter runs; the Python to which it links may have been upgraded or removed."""
    return python.exists() and subprocess.run([python, "-c", ""], check=False).returncode == 0


def check_platform() -> None:
    if sys.platform not in ("linux", "darwin"):
        raise SetupError(f"{sys.platform} is not supported: use Linux or macOS (on Windows, WSL 2)")
    if "musl" in f"{sysconfig.get_config_var('SOABI')} {sysconfig.get_config_var('HOST_GNU_TYPE')}":
        raise SetupError(
            "this system uses musl (Alpine), for which torch and the Java runtime publish no packages: use a "
            "glibc system such as Debian, Ubuntu or Fedora"
        )
    if platform.machine() not in ("x86_64", "amd64", "arm64", "aarch64"):
        raise SetupError(f"{platform.machine()} is not supported: use x86_64 or arm64")
    if sys.platform == "darwin" and platform.machine() == "x86_64" and sys.version_info >= (3, 13):
        raise SetupError("torch's last release for Intel Macs needs Python 3.11 or 3.12: install one of them")


def check_room() -> None:
    """Packages take room in `.venv` and, during the installation, in the cache in the home folder."""
    if has_torch():
        return
    for folder in (ROOT, Path.home()):
        free = shutil.disk_usage(folder).free
        if free < NEEDED_BYTES:
            raise SetupError(
                f"{folder} has {free / 1e9:.1f} GB free, {NEEDED_BYTES / 1e9:.0f} GB are needed for torch "
                "and its libraries: free some space and run this again"
            )


def has_torch() -> bool:
    return any(VENV.glob("lib/python*/site-packages/torch/version.py"))


def make_environment() -> None:
    if VENV.exists() and not STAMP.exists() and any(VENV.iterdir()):
        raise SetupError(f"{VENV} was not made by this set-up: move it away and run this again")
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir()
    STAMP.write_text("{}")
    say(f"making {VENV} with Python {platform.python_version()}")
    run("the virtual environment could not be made", sys.executable, "-m", "venv", str(VENV))


def install(extras: set[str]) -> None:
    """Installs the project from this folder (editable) with uv, or with pip where uv finds no index.

    pip reads configuration that uv does not, for example of a company's package index.
    """
    pip = (str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install")
    project = ("-e", f"{ROOT}[{','.join(sorted(extras))}]")
    if not (VENV / "bin" / "uv").exists():
        run("uv could not be installed: is there a network?", *pip, "--quiet", "uv>=0.7")
    uv = (str(VENV / "bin" / "uv"), "pip", "install", "--python", str(PYTHON))
    backend = torch_backend(uv)
    if not has_torch():
        large = sys.platform == "linux" and not backend
        say(f"downloading packages, {'about 3 GB (torch with CUDA)' if large else 'about 500 MB'}")
    if subprocess.run([*uv, *backend, *project], cwd=ROOT, check=False).returncode:
        say("uv could not install everything; trying pip")
        run("packages could not be installed (see above): is there a network?", *pip, *project)


def torch_backend(uv: tuple[str, ...]) -> list[str]:
    """uv's option for the small CPU build of torch, where a GPU cannot be used and that build can be had."""
    if sys.platform != "linux" or has_nvidia_driver() or has_torch():
        return []
    option = ["--torch-backend=cpu"]
    say("no NVIDIA driver here: looking for torch's CPU build")
    try:
        probe = subprocess.run(
            [*uv, *option, "--dry-run", "torch"],
            env={**os.environ, **PROBE},
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
        reachable = probe.returncode == 0
    except subprocess.TimeoutExpired:
        reachable = False
    if not reachable:
        say("the index of CPU builds cannot be reached: taking the build with CUDA (it needs no GPU)")
    return option if reachable else []


def has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def fetch_kafka() -> None:
    if os.environ.get("EDDY_BOOTSTRAP_SERVERS"):
        return
    run("Apache Kafka could not be fetched (see above)", str(PYTHON), "-m", "eddy.stream.local_kafka.jars")


def run(failure: str, *command: str) -> None:
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SetupError(failure)


def say(line: str) -> None:
    print(f"set-up: {line}", flush=True)


if __name__ == "__main__":
    try:
        set_up({*EXTRAS, *sys.argv[1:]})
    except SetupError as error:
        sys.exit(f"set-up: {error}")
    except KeyboardInterrupt:
        sys.exit("set-up: interrupted; run this again to go on")
    except OSError as error:
        sys.exit(f"set-up: {error}")
