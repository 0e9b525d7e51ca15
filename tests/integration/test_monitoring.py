"""The dashboard, the alerts and the configuration of Prometheus that we ship."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from celery import Celery

from celery_batcher import Batcher
from celery_batcher.contrib.families import FAMILIES, PREFIX
from celery_batcher.contrib.prometheus import exposition
from conftest import missing
from servers import promtool as installed_promtool

ROOT = Path(__file__).parents[2]
PROMETHEUS, GRAFANA = ROOT / "docker" / "prometheus", ROOT / "docker" / "grafana"
BOARD: dict[str, Any] = json.loads((GRAFANA / "celery_batcher.json").read_text())
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}
SERIES = {f"{PREFIX}up"} | {
    f"{PREFIX}{one.name}{suffix}" for one in FAMILIES for suffix in SUFFIXES.get(one.kind, ("",))
}
LABELS = {"le", *(label for one in FAMILIES for label in ("batcher", *one.labels))}
CLAUSE = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def panels() -> list[dict[str, Any]]:
    return [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of the dashboard and the alerts, with where it is."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for alert in ALERTS:
        yield alert["alert"], alert["expr"]


@pytest.fixture
def promtool() -> str:
    """Prometheus' own checker."""
    found = installed_promtool()
    if found is None:
        missing("promtool")
    return str(found)


def run(*command: str, directory: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# Prometheus


def test_prometheus_takes_its_configuration_and_the_rules(promtool: str) -> None:
    run(promtool, "check", "config", str(PROMETHEUS / "prometheus.yml"))
    run(promtool, "check", "rules", str(PROMETHEUS / "alerts.yml"))


def test_alerts_fire_when_they_should_and_not_otherwise(promtool: str) -> None:
    run(promtool, "test", "rules", "tests/prometheus/alerts_test.yml")


def test_every_alert_is_tested_firing_and_silent_and_says_what_to_do() -> None:
    tests = yaml.safe_load((ROOT / "tests" / "prometheus" / "alerts_test.yml").read_text())["tests"]
    found = {
        (rule["alertname"], bool(rule["exp_alerts"]))
        for test in tests
        for rule in test["alert_rule_test"]
    }

    assert found == {(one["alert"], fires) for one in ALERTS for fires in (True, False)}
    for one in ALERTS:
        assert one["labels"]["severity"] in {"critical", "warning"}
        assert set(one["annotations"]) == {"summary", "runbook"}
        assert len(one["annotations"]["runbook"]) > 100


def test_a_scrape_is_what_promtool_calls_clean(promtool: str) -> None:
    app = Celery("lint", broker="memory://lint", set_as_current=False)
    Batcher("lint", app=app).watcher(name="write")(lambda batch: None)
    body, _ = exposition(app)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=body, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    app.close()


def test_the_documentation_has_the_alerts() -> None:
    table = (ROOT / "docs" / "metrics.md").read_text()
    documented = re.findall(r"^\| `(CeleryBatcher\w+)` \| (\w+) \|", table, re.MULTILINE)

    assert documented == [(one["alert"], one["labels"]["severity"]) for one in ALERTS]


# The dashboard


def test_the_dashboard_is_what_grafana_reads() -> None:
    """Nothing is lost on the way through Grafana's own models, and every value has its type."""
    pytest.importorskip("grafana_foundation_sdk", reason="its models need Python 3.11")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models import dashboard as models

    register_default_plugins()
    board = models.Dashboard.from_json(BOARD)

    assert list(lost(BOARD, json.loads(JSONEncoder().encode(board)), "dashboard")) == []
    assert list(faults(board, models.Dashboard, "dashboard")) == []


def test_panels_do_not_overlap_and_each_says_what_it_shows() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert all(panel["description"] for panel in panels())
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_the_dashboard_asks_the_data_source_and_the_batchers_that_are_chosen() -> None:
    assert [one["name"] for one in BOARD["templating"]["list"]] == ["datasource", "batcher"]
    for panel in panels():
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert target["datasource"]["uid"] == "${datasource}"
            names = re.findall(rf"{PREFIX}\w+", target["expr"])
            assert target["expr"].count('{batcher=~"$batcher"') == len(names)


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_expressions_name_what_a_scrape_has(where: str, expression: str) -> None:
    assert set(re.findall(rf"{PREFIX}\w+", expression)) <= SERIES
    clauses = CLAUSE.findall(expression)
    assert {label for one in clauses for label in one.split(", ")} <= LABELS


def test_every_metric_that_shows_work_is_on_the_dashboard() -> None:
    shown = {
        name.removesuffix("_bucket")
        for panel in panels()
        for target in panel["targets"]
        for name in re.findall(rf"{PREFIX}\w+", target["expr"])
    }
    left_out = {f"{PREFIX}{one.name}" for one in FAMILIES} - shown
    assert left_out == {
        "celery_batcher_draining",
        "celery_batcher_operations_redriven_total",
        "celery_batcher_counters_repaired_total",
    }


def test_promtool_reads_every_expression_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = [
        {
            "record": f"panel:{at}",
            "expr": expression.replace("$__rate_interval", "5m").replace("$batcher", ".*"),
        }
        for at, (_, expression) in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    run(promtool, "check", "rules", str(file))


def test_grafana_is_provisioned_with_the_source_and_the_dashboard() -> None:
    files = sorted(GRAFANA.glob("provisioning/*/*.yml"))
    found = {file.parent.name: yaml.safe_load(file.read_text()) for file in files}

    assert found["datasources"]["datasources"][0]["type"] == "prometheus"
    assert found["dashboards"]["providers"][0]["options"]["path"]


# What Grafana's models make of a dashboard


def lost(ours: Any, theirs: Any, where: str) -> Iterator[str]:
    """What of ours the models do not know, or have otherwise; they add their defaults."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, one in ours.items():
            yield from lost(one, theirs.get(key, "nothing"), f"{where}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{where}[{at}]")
    elif ours != theirs:
        yield f"{where}: {ours!r}, of which they have {theirs!r}"


def faults(value: Any, hint: Any, where: str) -> Iterator[str]:
    """Values that are not of the type that Grafana's models give them."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        possible = [list(faults(value, one, where)) for one in inner]
        yield from [] if [] in possible else possible[0]
    elif origin is Literal:
        if value not in inner:
            yield f"{where}: {value!r} is none of {inner}"
    elif origin in (list, dict):
        if not isinstance(value, origin):
            yield f"{where}: {value!r} is no {origin.__name__}"
            return
        for key, one in value.items() if origin is dict else enumerate(value):
            yield from faults(one, inner[-1], f"{where}.{key}")
    elif isinstance(hint, type) and hint is not object:
        yield from _faults_of_one(value, hint, where)


def _faults_of_one(value: Any, hint: type, where: str) -> Iterator[str]:
    if issubclass(hint, Enum):
        right = value in {one.value for one in hint}
    else:
        right = isinstance(value, (int, float) if hint is float else hint)
    if not right or (isinstance(value, bool) and hint is not bool):
        yield f"{where}: {value!r} is no {hint.__name__}"
    elif hint.__module__.startswith("grafana") and not issubclass(hint, Enum):
        for name, one in get_type_hints(hint).items():
            yield from faults(getattr(value, name), one, f"{where}.{name}")
