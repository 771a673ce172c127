"""The compose file: it follows the specification, names what exists, and confines containers."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from typer.main import get_command

from eddy import __main__ as eddy
from tests.deploy.files import DEPLOY, SECRETS, SETTINGS, read_yaml, schema

pytestmark = pytest.mark.unit

COMPOSE = read_yaml(DEPLOY / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("${EDDY_IMAGE")}
COMMANDS: set[str] = set(getattr(get_command(eddy.app), "commands"))  # noqa: B009 (typer's type is wider)


def test_it_follows_the_compose_specification() -> None:
    jsonschema.validate(COMPOSE, schema("compose-spec"))


def test_the_services_of_eddy_are_its_commands() -> None:
    assert set(OURS) == {"topics", "worker", "serving", "refresh"}
    assert {service["command"][0] for service in OURS.values()} <= COMMANDS


def test_their_variables_are_settings_and_hold_no_secret() -> None:
    named = set().union(*(service["environment"] for service in OURS.values()))
    of_opentelemetry = {name for name in named if name.startswith("OTEL_")}
    assert named - of_opentelemetry <= SETTINGS - SECRETS


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_eddy_runs_without_root_on_a_file_system_that_it_cannot_write(name: str) -> None:
    service = OURS[name]
    assert (service["read_only"], service["user"]) == (True, "10001:10001")
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_everything_that_is_mounted_exists_or_is_a_volume() -> None:
    missing = []
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./"):
                missing += [] if (DEPLOY / source).exists() else [mount]
            elif not source.startswith("/"):
                missing += [] if source in COMPOSE["volumes"] else [mount]
    assert missing == []


def test_everything_that_a_service_waits_for_is_a_service() -> None:
    waits = [other for service in SERVICES.values() for other in service.get("depends_on", {})]
    assert waits
    assert set(waits) <= set(SERVICES)


def test_ports_are_open_to_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_scrapes_the_services_where_they_tell_their_metrics() -> None:
    jobs = read_yaml(DEPLOY / "observability" / "prometheus.yaml")["scrape_configs"]
    scraped = {
        name: source["port"]
        for job in jobs
        for source in job.get("dns_sd_configs", [])
        for name in source["names"]
    }
    assert scraped == {"worker": int(OURS["worker"]["environment"]["EDDY_METRICS_PORT"]), "serving": 8000}
    told = {"source_labels": ["__meta_dns_name"], "target_label": "dns_name"}  # to the alert EddyProcessGone
    assert [job["relabel_configs"] for job in jobs if "dns_sd_configs" in job] == [[told]] * len(scraped)


def test_every_image_has_a_version_that_a_variable_can_replace_by_a_digest() -> None:
    for service in SERVICES.values():
        assert re.fullmatch(r"\$\{[A-Z_]+:-[a-z/-]+:[\w.-]+\}", service["image"])
        assert not service["image"].endswith(":latest}")


def test_grafana_finds_its_home_dashboard() -> None:
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    name = home.removeprefix("/etc/grafana/dashboards/")
    assert json.loads((DEPLOY / "observability" / "dashboards" / name).read_text(encoding="utf-8"))["panels"]
