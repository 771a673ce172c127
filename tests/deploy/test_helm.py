"""The Helm chart makes what the base of kustomize makes, and takes the values that its users have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.files import DEPLOY, ROOT, SECRETS, SETTINGS, read_yaml, walk

CHART = DEPLOY / "helm"
MAKES_MANIFESTS = next((name for name in ("kubectl", "kustomize") if shutil.which(name)), None)
needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on the PATH")
pytestmark = pytest.mark.unit

Manifest = dict[str, Any]


def printed(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def made_by_helm(tmp_path: Path, values: Manifest | None = None) -> list[Manifest]:
    """The chart's manifests as release "eddy"."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values or {}), encoding="utf-8")
    cluster = ("--namespace", "eddy", "--kube-version", "1.34")
    text = printed("helm", "template", "eddy", str(CHART), *cluster, "--values", str(file))
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def comparable(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Manifests by kind and name, without what the two tools do each in its own way."""
    by_name: dict[str, Manifest] = {}
    for made in manifests:
        if made["kind"] == "Namespace":
            continue  # `helm install --create-namespace` makes it
        # A change of settings starts pods anew: by the map's name, or by an annotation. A revision has a Job.
        manifest = json.loads(re.sub(r'"(eddy-settings|eddy-topics)-\w+"', r'"\1"', json.dumps(made)))
        manifest["metadata"].pop("namespace", None)
        for at in walk(manifest):
            at.pop("app.kubernetes.io/instance", None)
            annotations = at.get("annotations", {})
            for name in ("checksum/settings", "helm.sh/resource-policy"):
                annotations.pop(name, None)
            if annotations == {}:
                at.pop("annotations", None)
        by_name[f"{manifest['kind']} {manifest['metadata']['name']}"] = manifest
    return by_name


@needs_helm
@pytest.mark.skipif(MAKES_MANIFESTS is None, reason="neither kubectl nor kustomize is on the PATH")
def test_the_chart_makes_what_the_base_makes(tmp_path: Path) -> None:
    command = ["kubectl", "kustomize"] if MAKES_MANIFESTS == "kubectl" else ["kustomize", "build"]
    base = comparable(list(yaml.safe_load_all(printed(*command, str(DEPLOY / "kubernetes" / "base")))))
    chart = comparable(made_by_helm(tmp_path))
    assert chart.keys() == base.keys()
    for name, manifest in base.items():
        assert chart[name] == manifest, name


@needs_helm
def test_the_chart_passes_helm_s_own_checks() -> None:
    printed("helm", "lint", "--strict", str(CHART))


@needs_helm
def test_with_object_storage_there_is_no_shared_volume(tmp_path: Path) -> None:
    settings = {"EDDY_REGISTRY": "s3://bucket/registry", "EDDY_EVENT_LOG": "s3://bucket/log"}
    made = made_by_helm(tmp_path, {"settings": settings, "sharedVolume": {"enabled": False}})
    assert "PersistentVolumeClaim" not in {manifest["kind"] for manifest in made}
    volumes = [at for at in walk(made) if at.get("name") == "shared" and "mountPath" not in at]
    assert volumes == [{"name": "shared", "emptyDir": {}}] * 3


@needs_helm
def test_values_reach_the_pods(tmp_path: Path) -> None:
    values = {
        "image": {"repository": "registry.example/eddy", "tag": "2.0-cuda"},
        "settings": {"EDDY_PARTITIONS": 32, "EDDY_HTTP_MAX_CONNECTIONS": 1_000_000, "EDDY_STALL_S": 0.5},
        "workers": {"replicas": None},
        "refresh": {"arguments": ["--canary", "10%"]},
    }
    made = comparable(made_by_helm(tmp_path, values))
    images = {at["image"] for manifest in made.values() for at in walk(manifest) if "image" in at}
    assert images == {"registry.example/eddy:2.0-cuda"}
    settings = made["ConfigMap eddy-settings"]["data"]
    assert settings["EDDY_PARTITIONS"] == "32"
    assert settings["EDDY_HTTP_MAX_CONNECTIONS"] == "1000000"  # to Helm it is 1e+06
    assert settings["EDDY_STALL_S"] == "0.5"
    assert "replicas" not in made["StatefulSet eddy-worker"]["spec"]
    pod = made["CronJob eddy-refresh"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == ["refresh", "--ok-if-none-live", "--canary", "10%"]


@needs_helm
def test_another_setting_starts_the_pods_anew(tmp_path: Path) -> None:
    checksums = {
        str(partitions): [
            at["checksum/settings"]
            for at in walk(made_by_helm(tmp_path, {"settings": {"EDDY_PARTITIONS": partitions}}))
            if "checksum/settings" in at
        ]
        for partitions in (16, 32)
    }
    assert [len(of_one) for of_one in checksums.values()] == [2, 2]
    assert not set(checksums["16"]) & set(checksums["32"])


def test_the_chart_has_the_package_s_version_and_no_secret() -> None:
    chart = read_yaml(CHART / "Chart.yaml")
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert chart["version"] == chart["appVersion"] == package
    assert read_yaml(CHART / "values.yaml")["settings"].keys() <= SETTINGS - SECRETS
