"""The images: what they are made of is locked, and their steps work in a clean folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.files import DEPLOY, ROOT, SETTINGS

pytestmark = pytest.mark.unit

DOCKERFILE = DEPLOY / "Dockerfile"
UV = Path(sys.executable).with_name("uv")
CONTAINER = {
    "platform_machine": "x86_64",
    "python_version": "3.12",
    "python_full_version": "3.12.0",
    "extra": "",
}
"""The machine for which the versions are locked."""


def locked(name: str) -> dict[str, str]:
    """The versions that a file of requirements names, by package."""
    text = (DEPLOY / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["cuda", "cpu", "build"])
def test_every_locked_package_has_its_hashes(name: str) -> None:
    text = (DEPLOY / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked(name)) > 0
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_locked_versions_are_those_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = map(
        Requirement,
        [
            *project["dependencies"],
            *project["optional-dependencies"]["drift"],
            *project["optional-dependencies"]["otel"],
        ],
    )
    versions = locked("cuda")
    unlocked = [
        str(requirement)
        for requirement in wanted
        if (requirement.marker is None or requirement.marker.evaluate(CONTAINER))
        and versions.get(canonicalize_name(requirement.name), "") not in requirement.specifier
    ]
    assert unlocked == [], "run `make lock`"


def test_the_image_for_cpus_differs_in_torch_and_what_only_a_gpu_needs() -> None:
    cuda, cpu = locked("cuda"), locked("cpu")
    assert cpu.items() <= cuda.items()
    only = set(cuda) - set(cpu)
    assert "torch" in only
    assert all(re.match(r"torch$|triton$|nvidia-|cuda-", name) for name in only)


def test_the_variables_of_the_image_are_settings() -> None:
    named = set(re.findall(r"\b(EDDY_[A-Z_]+)=", DOCKERFILE.read_text(encoding="utf-8")))
    assert named
    assert named <= SETTINGS


def test_no_container_runs_as_root_and_the_base_can_be_named_by_digest() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    for stage in ("cpu", "cuda"):
        assert re.search(rf"^FROM runtime AS {stage}$", text, re.MULTILINE)
    runtime = text.partition(" AS runtime\n")[2]
    assert re.findall(r"^USER (.+)$", runtime, re.MULTILINE) == ["10001:10001"]
    assert {line for line in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if ":" in line} == set()


def test_everything_is_cached_in_the_folder_that_containers_may_write() -> None:
    values = dict(re.findall(r"^ +([A-Z_]+)=(\S+)", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE))
    assert values["EDDY_CACHE_DIR"] == values["XDG_CACHE_HOME"] == "/var/lib/eddy/cache"
    # A user without a home folder of a known name would end every command.
    assert values["HOME"] == "/var/lib/eddy"


def test_what_the_images_copy_is_not_left_out_of_their_context() -> None:
    kept = {
        line.removeprefix("!")
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert set(copied) == kept
    assert [source for source in copied if not (ROOT / source).exists()] == []


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Yields the port of a server that answers each GET with this status."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
@pytest.mark.parametrize("variable", ["EDDY_PORT", "EDDY_METRICS_PORT"])
def test_the_health_check_asks_the_port_of_its_process(variable: str, status: int, code: int) -> None:
    with answering(status) as port:
        done = subprocess.run(
            [sys.executable, DEPLOY / "healthcheck.py"],
            env={variable: str(port)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == code, done.stderr


def test_the_dockerfile_has_no_finding_of_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("`make deploy-check` installs hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def image_step(folder: Path, *arguments: str) -> None:
    """What a RUN instruction does, with a folder of this machine in place of the image's."""
    environment = {
        "PATH": f"{UV.parent}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "HOME": os.environ.get("HOME", str(folder)),
    }
    proxies = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_"))}
    done = subprocess.run(
        ["sh", str(DEPLOY / "image.sh"), *arguments],
        cwd=folder,
        env={**proxies, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(600)
def test_the_steps_of_the_image_make_a_program_that_runs(tmp_path: Path) -> None:
    pytest.importorskip("promql_parser", reason="`make deploy-check` downloads the locked packages")
    # The build of torch that this environment has, so that little is left to download.
    device = "cpu" if version("torch").endswith("+cpu") else "cuda"
    image_step(tmp_path, "packages", device, str(tmp_path / "eddy"))
    image_step(tmp_path, "program", str(tmp_path / "program"))
    code = (
        "import eddy.stream.worker.app, eddy.serving.app, eddy.refresh.job, importlib.metadata as m;"
        "print(m.version('eddy-streams'))"
    )
    done = subprocess.run(
        [tmp_path / "eddy" / "bin" / "python", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "program"), "EDDY_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{version('eddy-streams')}\n", done.stderr
