"""deploy/grafana: the board is what its script makes, Grafana's own library reads it, and every panel shows something."""

import importlib.util
import json
import re
import time

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deployed import DEPLOY, Prometheus, defined_metrics, eventually, run, used_metrics
from frontend_fixture import FakeWorker, Frontend, video, worker

TEXT = (DEPLOY / "grafana" / "board.json").read_text()


def panels(text):
    """(title, query) of each."""
    return [(panel["title"], target["expr"]) for row in json.loads(text)["panels"]
            for panel in [row, *row.get("panels", [])] for target in panel.get("targets", [])]


QUERIES = panels(TEXT)


def made():
    spec = importlib.util.spec_from_file_location("board", DEPLOY / "grafana" / "board.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.board()


def as_prometheus_gets_it(query):
    return query.replace("$__rate_interval", "4m").replace("$instance", ".*")


def fault_of(text):
    """The first fault of a board; None: it has none."""
    if text != made():
        return "it is not what board.py makes"
    encoded = JSONEncoder(sort_keys=True, indent=1).encode(Dashboard.from_json(json.loads(text))) + "\n"
    if encoded != text:
        return "Grafana's library reads something else"
    return next(filter(None, (fault_of_query(query) for _, query in panels(text))), None)


def fault_of_query(query):
    try:
        promql_parser.parse(as_prometheus_gets_it(query))
    except ValueError as error:
        return f"{query}: {error}"
    unknown = used_metrics(query) - defined_metrics()
    recorded = {rule.get("record") for group in yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
                for rule in group["rules"]}
    unknown |= set(re.findall(r"\bkino:[a-z0-9_:]+", query)) - recorded
    return f"{query}: no metric {unknown}" if unknown else None


def test_the_board_has_no_fault():
    assert fault_of(TEXT) is None
    assert len(QUERIES) >= 35 and len({title for title, _ in QUERIES}) >= 28


@pytest.mark.parametrize("old, new", [
    ("Jobs by state", "Jobs by States"), ('"unit": "bytes"', '"units": "bytes"'), ('"refresh": "30s"', '"refresh": "30s", "speed": 3'),
])
def test_an_edited_board_is_seen(old, new):
    assert old in TEXT and fault_of(TEXT.replace(old, new, 1)) is not None


def test_a_field_that_grafana_does_not_know_is_seen():
    text = TEXT.replace('"refresh": "30s"', '"refreshes": "30s"', 1)
    assert JSONEncoder(sort_keys=True, indent=1).encode(Dashboard.from_json(json.loads(text))) + "\n" != text


@pytest.mark.parametrize("query", ["sum(rate(kino_watchers[5m])", "kino_watcher", "kino:attempts_failed:rate", "sum by kino_jobs"])
def test_a_wrong_query_is_seen(query):
    assert fault_of_query(query) is not None


def history(exposition):
    """Two hours as OpenMetrics: counters grow by what they are now every minute, gauges stay."""
    now = int(time.time())
    growing = set(re.findall(r"^# TYPE (\S+) (?:counter|histogram)$", exposition, re.MULTILINE))
    lines = []
    for name, labels, value in re.findall(r"^(kino_\w+)(?:\{(.*)\})? (\S+)$", exposition, re.MULTILINE):
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        labels = ",".join(filter(None, ['instance="a:9464"', 'job="kino"', labels]))
        for minute in range(120):
            value_then = float(value) * (minute + 1) if {name, family} & growing else float(value)
            lines.append(f"{name}{{{labels}}} {value_then} {now - 60 * (119 - minute)}")
    return "\n".join(lines) + "\n# EOF\n"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """Has what a frontend says that has seen a job, a cancel and a load, as if that went on for two hours."""
    folder = tmp_path_factory.mktemp("prometheus")
    frontend = Frontend(tmp_path_factory.mktemp("frontend"))
    fake = FakeWorker(frontend, device_memory_bytes=1 << 30)
    fake.send(heartbeat=worker.WorkerHeartbeat(models=fake.models, loads=[worker.ModelLoad(model="demo", seconds=2)]))
    done = frontend.submit()
    fake.attempt().succeed()
    list(frontend.watch(done.id))
    cancelled = frontend.submit()
    attempt = fake.attempt()
    attempt.started()
    # The frontend looks twice a second: who has a job for less may not be seen.
    frontend.metric_becomes('kino_tenant_jobs{state="running",tenant="default"}', 1)
    frontend.cancel(cancelled.id)
    fake.expect("cancel")
    attempt.failed(worker.AttemptFailed.CANCELLED_BY_US, code=1)
    frontend.wait_for(cancelled.id, video.CANCELLED)
    for series in ('kino_model_load_seconds_count{model="demo"}', "kino_cancel_seconds_count",
                   'kino_jobs_ended_total{state="cancelled"}', 'kino_jobs_ended_total{state="succeeded"}'):
        frontend.metric_becomes(series, 1)
    text = frontend.metrics() + f"kino_certificate_expiry_timestamp_seconds {time.time() + 9e6}\n"  # as with TLS
    assert frontend.stop() == 0
    (folder / "history.txt").write_text(history(text))
    imported = run("promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "history.txt", folder / "tsdb")
    assert imported.returncode == 0, imported.stderr
    (folder / "prometheus.yml").write_text(yaml.safe_dump({
        "global": {"evaluation_interval": "1s"}, "rule_files": [str(DEPLOY / "prometheus" / "rules.yml")]}))
    server = Prometheus(folder, folder / "prometheus.yml")
    eventually(lambda: server.query("kino:device_seconds:per_output_second"), "the rules are computed")
    yield server
    server.stop()


@pytest.mark.parametrize("title, query", QUERIES)
def test_every_panel_shows_something(prometheus, title, query):
    samples = eventually(lambda: prometheus.query(as_prometheus_gets_it(query)), f"{title} has data")
    assert any(sample["value"][1] != "NaN" for sample in samples), (title, samples)


def test_the_nodes_that_can_be_chosen_are_those_that_there_are(prometheus):
    assert "label_values(kino_watchers, instance)" in TEXT
    assert [sample["metric"]["instance"] for sample in prometheus.query("kino_watchers")] == ["a:9464"]
