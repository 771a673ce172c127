"""The manifests of Kubernetes, as kustomize puts them together: valid, confined, and consistent with Eddy."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from typer.main import get_command

from eddy import __main__ as eddy
from eddy.stream.records.settings import load_settings
from tests.deploy.files import DEPLOY, SECRETS, SETTINGS, read_env, read_yaml, walk

pytestmark = pytest.mark.unit

FOLDER = DEPLOY / "kubernetes"
VARIANTS = ["base", "overlays/strimzi", "overlays/strimzi-keda", "overlays/managed"]
COMMANDS: set[str] = set(getattr(get_command(eddy.app), "commands"))  # noqa: B009 (typer's type is wider)
WITHOUT_SCHEMA = {"kafka.strimzi.io", "keda.sh"}
"""API groups of operators, whose schemas come with them and are not checked here."""

Manifest = dict[str, Any]


@pytest.fixture(scope="module", params=VARIANTS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """What kustomize makes of a folder."""
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    if shutil.which(command[0]) is None:
        pytest.skip("neither kubectl nor kustomize is on the PATH")
    done = subprocess.run(
        [*command, str(FOLDER / request.param)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The specifications of all pods, by the kind and the name of what makes them."""
    return {
        f"{manifest['kind']} {manifest['metadata']['name']}": at["template"]
        for manifest in manifests
        for at in walk(manifest)
        if isinstance(at.get("template"), dict) and "containers" in at["template"].get("spec", {})
    }


def test_every_manifest_follows_the_schema_of_kubernetes(manifests: list[Manifest]) -> None:
    kubernetes = pytest.importorskip(
        "kubernetes_validate", reason="`make deploy-check` installs kubernetes-validate"
    )
    for manifest in manifests:
        if manifest["apiVersion"].partition("/")[0] not in WITHOUT_SCHEMA:
            kubernetes.validate(manifest, "1.34", strict=True)


def test_every_pod_is_confined(manifests: list[Manifest]) -> None:
    assert len(pods(manifests)) == 4
    for template in pods(manifests).values():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        # A Service named eddy-port would set EDDY_PORT.
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


def test_every_mount_has_its_volume(manifests: list[Manifest]) -> None:
    claims = {
        claim["metadata"]["name"]
        for manifest in manifests
        for claim in manifest.get("spec", {}).get("volumeClaimTemplates", [])
    }
    for name, template in pods(manifests).items():
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        volumes |= claims if name.startswith("StatefulSet") else set()
        mounted = {m["name"] for c in template["spec"]["containers"] for m in c["volumeMounts"]}
        assert mounted <= volumes, name


def test_network_policies_are_about_eddy_s_pods_alone(manifests: list[Manifest]) -> None:
    """Not about a Kafka in the same namespace, whose brokers speak to each other on ports of their own."""
    policies = [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    assert len(policies) == 3
    for policy in policies:
        assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "eddy"


def test_claims_that_pods_name_are_made(manifests: list[Manifest]) -> None:
    made = {m["metadata"]["name"] for m in manifests if m["kind"] == "PersistentVolumeClaim"}
    named = {at["claimName"] for at in walk(manifests) if "claimName" in at}
    assert named == made


def test_the_variables_are_settings_and_secrets_come_by_reference(manifests: list[Manifest]) -> None:
    kinds = [manifest["kind"] for manifest in manifests]
    assert "Secret" not in kinds
    (settings,) = (manifest["data"] for manifest in manifests if manifest["kind"] == "ConfigMap")
    named = {entry["name"] for at in walk(manifests) for entry in at.get("env", []) if "name" in entry}
    assert (set(settings) | named) - {"AWS_REGION"} <= SETTINGS - SECRETS
    for template in pods(manifests).values():
        (container,) = template["spec"]["containers"]
        sources = [at["secretRef"]["name"] for at in container["envFrom"] if "secretRef" in at]
        assert "eddy-kafka" in sources


def test_the_settings_are_ones_that_eddy_takes(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings,) = (manifest["data"] for manifest in manifests if manifest["kind"] == "ConfigMap")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert load_settings().bootstrap_servers == settings["EDDY_BOOTSTRAP_SERVERS"]


def test_containers_run_commands_of_eddy(manifests: list[Manifest]) -> None:
    for template in pods(manifests).values():
        (container,) = template["spec"]["containers"]
        assert "command" not in container  # the image's own hands signals on
        assert container["args"][0] in COMMANDS


def test_services_budgets_and_policies_select_pods_that_exist(manifests: list[Manifest]) -> None:
    labels = [template["metadata"]["labels"] for template in pods(manifests).values()]
    selectors = [
        at["selector"].get("matchLabels", at["selector"])
        for manifest in manifests
        if manifest["kind"] in ("Service", "PodDisruptionBudget")
        for at in walk(manifest)
        if isinstance(at.get("selector"), dict)
    ] + [
        manifest["spec"]["podSelector"].get("matchLabels", {})
        for manifest in manifests
        if manifest["kind"] == "NetworkPolicy"
    ]
    assert len(selectors) == 7
    for selector in selectors:
        assert any(selector.items() <= one.items() for one in labels), selector


def test_workers_keep_their_names_and_their_disks(manifests: list[Manifest]) -> None:
    (workers,) = (manifest for manifest in manifests if manifest["kind"] == "StatefulSet")
    (container,) = workers["spec"]["template"]["spec"]["containers"]
    (name,) = (entry for entry in container["env"] if entry["name"] == "EDDY_WORKER_ID")
    assert name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert {"name": "state", "mountPath": "/var/lib/eddy/cache"} in container["volumeMounts"]


def test_prometheus_finds_the_pods_by_their_labels_and_ports(manifests: list[Manifest]) -> None:
    (job,) = read_yaml(DEPLOY / "observability" / "prometheus-kubernetes.yaml")["scrape_configs"]
    wanted = next(rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep")
    scraped = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]
        for template in pods(manifests).values()
        for container in template["spec"]["containers"]
        for port in container.get("ports", [])
        if re.fullmatch(wanted, f"{template['metadata']['labels']['app.kubernetes.io/name']};{port['name']}")
    }
    assert scraped == {"worker", "serving"}


def test_alerts_find_the_refreshes_by_the_name_of_the_workers(manifests: list[Manifest]) -> None:
    """kube-state-metrics tells names, and labels only where it is told to."""
    (workers,) = (m["metadata"]["name"] for m in manifests if m["kind"] == "StatefulSet")
    (refreshes,) = (m["metadata"]["name"] for m in manifests if m["kind"] == "CronJob")
    label_replace = re.search(
        r'label_replace\(kube_statefulset_created, "cronjob", "(.+)", "statefulset", "(.+)"\)',
        (DEPLOY / "observability" / "alerts.yaml").read_text(encoding="utf-8"),
    )
    assert label_replace is not None
    replacement, pattern = label_replace.groups()
    assert re.sub(f"^{pattern}$", replacement.replace("$", "\\"), workers) == refreshes


def test_there_are_never_more_workers_than_partitions(manifests: list[Manifest]) -> None:
    (settings,) = (manifest["data"] for manifest in manifests if manifest["kind"] == "ConfigMap")
    (workers,) = (manifest for manifest in manifests if manifest["kind"] == "StatefulSet")
    scaled = [manifest["spec"] for manifest in manifests if manifest["kind"] == "ScaledObject"]
    assert all("replicas" not in workers["spec"] for _ in scaled)
    most = max(spec["maxReplicaCount"] for spec in scaled) if scaled else workers["spec"]["replicas"]
    assert most <= int(settings["EDDY_PARTITIONS"])


def test_no_base_or_overlay_is_without_a_check() -> None:
    found = {str(path.parent.relative_to(FOLDER)) for path in FOLDER.rglob("kustomization.yaml")}
    components = {
        name for name in found if read_yaml(FOLDER / name / "kustomization.yaml")["kind"] == "Component"
    }
    assert found - components == set(VARIANTS)


def test_the_base_states_no_secret() -> None:
    assert not SECRETS & set(read_env(FOLDER / "base" / "settings.env"))


def test_servers_can_write_decisions_into_the_registry(manifests: list[Manifest]) -> None:
    """Who makes a version live over HTTP leaves a decision there."""
    (servers,) = (pod for name, pod in pods(manifests).items() if name.startswith("Deployment"))
    (container,) = servers["spec"]["containers"]
    (shared,) = (mount for mount in container["volumeMounts"] if mount["name"] == "shared")
    assert not shared.get("readOnly")


def test_every_pod_finds_the_files_that_settings_name(manifests: list[Manifest]) -> None:
    """API keys and certificates: read-only, from a Secret that an installation without them lacks."""
    for name, template in pods(manifests).items():
        (volume,) = (volume for volume in template["spec"]["volumes"] if volume["name"] == "files")
        assert volume["secret"] == {"secretName": "eddy-files", "optional": True, "defaultMode": 0o440}, name
        for container in template["spec"]["containers"]:
            mount = {"name": "files", "mountPath": "/etc/eddy", "readOnly": True}
            assert mount in container["volumeMounts"], name
