"""Dashboards and alerts ask for metrics that processes export, in queries that Prometheus understands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from eddy.models.decisions import Decision
from eddy.refresh.endings import Outcome
from eddy.refresh.metrics import write_metrics
from eddy.serving.metrics import ServerMetrics
from eddy.stream.worker.metrics import WorkerMetrics
from tests.deploy.files import DEPLOY, ROOT, loaded, read_yaml, walk

pytestmark = pytest.mark.unit

FOLDER = DEPLOY / "observability"
RULES = [rule for group in read_yaml(FOLDER / "alerts.yaml")["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
ENDINGS = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
"""What Prometheus adds to the name of a metric, by its kind."""
OF_OTHERS = {
    "up",
    "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes",
    "node_filesystem_avail_bytes", "node_filesystem_size_bytes",
    "kube_cronjob_created", "kube_cronjob_status_last_successful_time", "kube_statefulset_created",
    "kube_job_created", "kube_job_failed", "kube_job_owner",
}  # fmt: skip
"""Prometheus' own, the node exporter's, and those of kube-state-metrics."""
PROMQL = {
    "absent", "and", "avg", "clamp_min", "count", "histogram_quantile", "increase", "label_replace", "max",
    "max_over_time", "min", "or", "quantile_over_time", "rate", "sum", "time", "unless", "vector",
}  # fmt: skip
"""Its words that the queries use."""


def queries(document: Any) -> list[str]:
    return [at["expr"] for at in walk(document) if "expr" in at]


EVERY_QUERY = [
    *(query for path in DASHBOARDS for query in queries(json.loads(path.read_text(encoding="utf-8")))),
    *queries(RULES),
]


def names_of(registry: CollectorRegistry) -> set[str]:
    return {
        family.name + ending for family in registry.collect() for ending in ENDINGS.get(family.type, [""])
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all metrics of workers, servers and refreshes."""
    worker, server = WorkerMetrics(), ServerMetrics()
    ProcessCollector(registry=worker.registry)
    file = tmp_path_factory.mktemp("metrics") / "eddy.prom"
    judged = {"metrics": {"candidate": {"mrr@20": 0.1}}, "gains": {"live": {"mean": 0.0}}}
    decision = Decision("went live", "v2", "v1", 2, "It is better.", {"judgement": judged}, "refresh")
    write_metrics(file, Outcome(decision, {"train": 1.0}))
    of_refresh = {family.name for family in text_string_to_metric_families(file.read_text(encoding="utf-8"))}
    return names_of(worker.registry) | names_of(server.registry) | of_refresh


@pytest.fixture(scope="module")
def dashboards() -> ModuleType:
    return loaded(FOLDER / "dashboards.py")


def metrics_in(query: str) -> set[str]:
    """The metrics of a query: its words outside of strings, braces, by-clauses and offsets, but PromQL's
    own.
    """
    text, labels = r"\{[^}]*\}|\"[^\"]*\"", r"\b(by|on|group_left)\s*\([^)]*\)"
    bare = re.sub(rf"{text}|{labels}|\[[^]]*\]|\boffset \w+", " ", query)
    return set(re.findall(r"[a-zA-Z_][\w:]*", bare)) - PROMQL


@pytest.mark.skipif(sys.platform != "linux", reason="processes tell their memory on Linux only")
def test_every_metric_of_dashboards_and_alerts_is_exported(exported: set[str]) -> None:
    asked = set().union(*map(metrics_in, EVERY_QUERY))
    assert len(asked) > 40
    assert asked - exported - OF_OTHERS - RECORDED == set()


def test_the_files_of_the_dashboards_are_what_their_source_writes(dashboards: ModuleType) -> None:
    written = {path.stem: path.read_text(encoding="utf-8") for path in DASHBOARDS}
    assert written == {board.name: dashboards.to_json(board) for board in dashboards.DASHBOARDS}


def test_there_is_one_dashboard_for_each_question(dashboards: ModuleType) -> None:
    questions = [board.question for board in dashboards.DASHBOARDS]
    assert questions == ["Is it healthy?", "Is it fresh?", "Is it good?", "Is it full?"]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_every_alert_has_a_row_in_the_runbook(rule: dict[str, Any]) -> None:
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    text = (ROOT / file).read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    assert anchor in headings
    assert re.search(rf"^\| `{rule['alert']}` \|", text, re.MULTILINE)
    assert rule["labels"]["severity"] in ("critical", "warning")


@pytest.mark.parametrize("query", sorted(set(EVERY_QUERY)))
def test_every_query_is_promql(query: str) -> None:
    promql = pytest.importorskip("promql_parser", reason="`make deploy-check` installs promql-parser")
    assert promql.parse(query)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the PATH")
def test_prometheus_takes_its_configuration_and_the_alerts(tmp_path: Path) -> None:
    for name in ("prometheus.yaml", "alerts.yaml"):
        shutil.copy(FOLDER / name, tmp_path)
    for what in (["rules", "alerts.yaml"], ["config", "prometheus.yaml"]):
        done = subprocess.run(
            ["promtool", "check", *what], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the PATH")
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "alerts.yaml", tmp_path)
    shutil.copy(Path(__file__).with_name("alerts_test.yaml"), tmp_path)
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
