"""The dashboards, one for each question that operators ask. `python deploy/observability/dashboards.py`
writes them to dashboards/*.json for Grafana; a test compares these files with this one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
COLUMNS = 3
"""Panels beside each other."""

_WIDTH, _HEIGHT = 24 // COLUMNS, 8
_SOURCE = {"type": "prometheus", "uid": "prometheus"}


@dataclass(frozen=True)
class Panel:
    """One chart. lines: PromQL by the legend of what it yields. unit: in Grafana's terms."""

    title: str
    help: str
    lines: dict[str, str]
    unit: str = "short"


@dataclass(frozen=True)
class Dashboard:
    """The charts that answer one question."""

    name: str
    question: str
    panels: tuple[Panel, ...]


def quantiles(metric: str, by: str = "") -> dict[str, str]:
    """The median and the 99th percentile of a histogram, by a label where one is named."""
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return {
        f"{legend}{name}": f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[5m])))"
        for name, q in (("p50", 0.5), ("p99", 0.99))
    }


def rates(**metrics: str) -> dict[str, str]:
    """Counters' rates, summed over processes, by their legends."""
    return {legend.replace("_", " "): f"sum(rate({metric}_total[1m]))" for legend, metric in metrics.items()}


def live_ranks(metric: str) -> dict[str, str]:
    """A prequential metric of each version, beside that of decayed popularity on the same events."""
    return {
        f"{{{{version}}}}{legend}": f'avg by (version) (eddy_prequential{{metric="{name}"}})'
        for legend, name in (("", metric), (": popularity", f"popularity_{metric}"))
    }


HEALTHY = Dashboard(
    "healthy",
    "Is it healthy?",
    (
        Panel(
            "Processes that are ready",
            "Workers: all partitions are restored. Servers: every topic is read.",
            {
                "workers ready": 'sum(eddy_ready{job="eddy-worker"})',
                "workers": 'count(up{job="eddy-worker"})',
                "servers ready": 'sum(eddy_ready{job="eddy-serving"})',
                "servers": 'count(up{job="eddy-serving"})',
            },
        ),
        Panel(
            "Events per second",
            "Read counts bad records and repeats, too; applied are those that moved a state.",
            rates(read="eddy_events_read", applied="eddy_events_applied", posted="eddy_events_posted"),
            "ops",
        ),
        Panel("Lists per second", "Messages on recommendations.", rates(lists="eddy_recommendations"), "ops"),
        Panel(
            "Time without progress",
            "Although there is more to read. A worker ends itself after EDDY_STALL_S.",
            {"{{instance}}": "eddy_stalled_seconds"},
            "s",
        ),
        Panel(
            "Refused and unreadable records per second",
            "Dead letters are records of events that are no events.",
            {
                **rates(dead_letters="eddy_dead_letters"),
                "unreadable on {{topic}}": "sum by (topic) (rate(eddy_unreadable_total[1m]))",
            },
            "ops",
        ),
        Panel("Checkpoints", "How long one takes.", quantiles("eddy_checkpoint_seconds"), "s"),
        Panel(
            "Requests per second by status",
            "Status 0: the connection ended before the answer.",
            {"{{status}}": "sum by (status) (rate(eddy_http_requests_total[1m]))"},
            "reqps",
        ),
        Panel(
            "Answers of recommendations",
            "From a question to its list.",
            quantiles("eddy_request_seconds"),
            "s",
        ),
        Panel(
            "Epoch of the live version",
            "All processes move to a new epoch within seconds; awaited is one that a worker cannot load.",
            {"{{instance}}": "eddy_epoch", "{{instance}} awaits": "eddy_epoch_awaited > 0"},
        ),
    ),
)

FRESH = Dashboard(
    "fresh",
    "Is it fresh?",
    (
        Panel(
            "From an event to its durable state",
            "From the append to events until the checkpoint that includes it.",
            quantiles("eddy_freshness_seconds"),
            "s",
        ),
        Panel(
            "From a record to the servers",
            "Until a server's view includes it, by topic.",
            quantiles("eddy_followed_seconds", "topic"),
            "s",
        ),
        Panel(
            "Records that servers have still to follow",
            "By topic.",
            {"{{topic}}": "max by (topic) (eddy_followed_lag)"},
        ),
        Panel(
            "Age of states at answers",
            "From the user's last event until the stream's now: old for people who come back after long.",
            quantiles("eddy_state_age_seconds"),
            "s",
        ),
        Panel("Events that wait", "By partition.", {"{{partition}}": "sum by (partition) (eddy_lag)"}),
        Panel(
            "Time until the backlog is done",
            "Events that wait, by those that are applied per second.",
            {"seconds": "sum(eddy_lag) / clamp_min(sum(rate(eddy_events_applied_total[5m])), 1)"},
            "s",
        ),
        Panel(
            "Restores",
            "Share of the changelog that is read, of partitions that move to a worker.",
            {"partition {{partition}}": "eddy_restore_progress < 1"},
            "percentunit",
        ),
        Panel(
            "Rows of older epochs",
            "Rows that still have to move to the live version.",
            {"rows": "sum(eddy_rows_of_older_epochs)"},
        ),
        Panel(
            "Late, repeated and ignored events per second",
            "Late events are put where they belong; too late ones are older than the anchor.",
            rates(
                late="eddy_events_late",
                too_late="eddy_events_too_late",
                re_sent="eddy_events_repeated",
                read_again="eddy_events_replayed",
                ignored="eddy_events_ignored",
            ),
            "ops",
        ),
        Panel(
            "Micro-batches under way",
            "Whose lists or ranks are still being made.",
            {"{{instance}}": "eddy_unanswered_batches"},
        ),
        Panel("Records per micro-batch", "A quiet stream has small ones.", quantiles("eddy_batch_events")),
    ),
)

GOOD = Dashboard(
    "good",
    "Is it good?",
    (
        Panel(
            "Live MRR@20",
            "Each event of a sample of users is ranked before it is applied, beside decayed popularity.",
            live_ranks("mrr_at_20"),
        ),
        Panel(
            "Live Recall@20",
            "On the same events.",
            live_ranks("recall_at_20"),
        ),
        Panel(
            "Share of users that are ranked",
            "EDDY_PREQUENTIAL_SAMPLE, or what EDDY_PREQUENTIAL_TIME allows.",
            {"{{instance}}": "eddy_prequential_sample"},
            "percentunit",
        ),
        Panel(
            "Questions about unknown users",
            "They get popular and new items.",
            {
                "share": 'sum(rate(eddy_requests_total{outcome="unknown"}[5m]))'
                " / clamp_min(sum(rate(eddy_requests_total[5m])), 1)"
            },
            "percentunit",
        ),
        Panel(
            "What the last refresh decided",
            "1 for its decision.",
            {"{{kind}}": "max by (kind) (eddy_refresh_decision)"},
        ),
        Panel(
            "Gain of the last candidate",
            "Its judged metric minus the other's on the same events, with the ends of the interval.",
            {"over {{over}}, {{end}}": "eddy_refresh_gain"},
        ),
        Panel(
            "Age of the last decision",
            "Refreshes run on a schedule; see README, Operations.",
            {"age": "time() - eddy_refresh_end_timestamp_seconds"},
            "s",
        ),
        Panel(
            "Judged MRR@20 of the last refresh",
            "On the window that neither version has seen.",
            {"{{of}}": 'eddy_refresh_judged{metric="mrr@20"}'},
        ),
        Panel(
            "Steps of the last refresh", "How long each took.", {"{{step}}": "eddy_refresh_step_seconds"}, "s"
        ),
    ),
)

FULL = Dashboard(
    "full",
    "Is it full?",
    (
        Panel(
            "Users in memory",
            "A worker holds those of its partitions, a server all.",
            {"{{job}} {{instance}}": "eddy_rows"},
        ),
        Panel(
            "Items in the catalogue",
            "Idle ones leave after EDDY_ITEM_IDLE_DAYS.",
            {"items": "max(eddy_items)"},
        ),
        Panel(
            "Users by the version of their row",
            "Rows move to a new version in the background, the most recently active first.",
            {"{{version}}": "max by (version) (eddy_version_rows)"},
        ),
        Panel(
            "Memory of processes",
            "Resident.",
            {"{{job}} {{instance}}": 'process_resident_memory_bytes{job=~"eddy-.*"}'},
            "bytes",
        ),
        Panel(
            "Processors in use",
            "By process: a worker's engine is one thread, beside its decoder and those that score.",
            {"{{job}} {{instance}}": 'rate(process_cpu_seconds_total{job=~"eddy-.*"}[1m])'},
        ),
        Panel(
            "Refused requests",
            "Share of answers 503, probes aside: what cannot be answered in time is refused at once.",
            {
                "share": '(sum(rate(eddy_http_requests_total{status="503", route!~"/readyz|/healthz"}[5m]))'
                " or vector(0))"
                ' / clamp_min(sum(rate(eddy_http_requests_total{route!~"/readyz|/healthz"}[5m])), 1)'
            },
            "percentunit",
        ),
        Panel(
            "Questions scored together",
            "They grow with the load.",
            quantiles("eddy_request_batch"),
        ),
        Panel(
            "Memory left",
            "By machine.",
            {"{{instance}}": "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"},
            "percentunit",
        ),
        Panel(
            "Disk left",
            "By file system; Kafka's, snapshots', the registry's and the event log's are those to watch.",
            {
                "{{instance}} {{mountpoint}}": 'node_filesystem_avail_bytes{fstype!~"tmpfs|overlay"}'
                " / node_filesystem_size_bytes"
            },
            "percentunit",
        ),
        Panel(
            "Rows that were dropped or erased per second",
            "Idle rows are dropped after EDDY_IDLE_DAYS.",
            rates(idle="eddy_rows_idle_dropped", erased="eddy_users_erased"),
            "ops",
        ),
    ),
)

DASHBOARDS = (HEALTHY, FRESH, GOOD, FULL)


def to_json(dashboard: Dashboard) -> str:
    """A dashboard as Grafana reads it."""
    panels = [
        {
            "id": n + 1,
            "type": "timeseries",
            "title": panel.title,
            "description": panel.help,
            "datasource": _SOURCE,
            "gridPos": {"x": n % COLUMNS * _WIDTH, "y": n // COLUMNS * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
            "fieldConfig": {
                "defaults": {"unit": panel.unit, "min": 0 if panel.unit != "short" else None},
                "overrides": [],
            },
            "options": {
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi"},
            },
            "targets": [
                {"refId": chr(ord("A") + i), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
                for i, (legend, query) in enumerate(panel.lines.items())
            ],
        }
        for n, panel in enumerate(dashboard.panels)
    ]
    document: dict[str, Any] = {
        "uid": f"eddy-{dashboard.name}",
        "title": f"Eddy: {dashboard.question}",
        "tags": ["eddy"],
        "schemaVersion": 41,
        "timezone": "browser",
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["eddy"], "title": "Eddy", "asDropdown": False}],
        "panels": panels,
    }
    return json.dumps(document, indent=1) + "\n"


def write() -> None:
    """Write the files that Grafana reads."""
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.name}.json").write_text(to_json(dashboard), encoding="utf-8")


if __name__ == "__main__":
    write()
