"""deploy/prometheus: its files as promtool and amtool read them, and an alert from a real worker's end to a webhook."""

import http.server
import json
import re
import shutil
import threading

import pytest
import yaml

from deployed import DEADLINE, DEPLOY, Prometheus, Service, defined_metrics, eventually, free_port, run, used_metrics
from frontend_fixture import FakeWorker, Frontend

FOLDER = DEPLOY / "prometheus"
RULES = yaml.safe_load((FOLDER / "rules.yml").read_text())
ALL = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}


@pytest.fixture
def copy(tmp_path):
    """A copy of the folder, to plant faults in: edit(file, old, new)."""
    shutil.copytree(FOLDER, tmp_path / "prometheus")

    def edit(name, old, new):
        path = tmp_path / "prometheus" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return tmp_path / "prometheus", edit


def check(folder):
    """Of the first tool that finds something; empty: none does."""
    for command in (["promtool", "check", "config", "prometheus.yml"], ["promtool", "test", "rules", "rules_test.yml"],
                    ["amtool", "check-config", "alertmanager.yml"]):
        done = run(*command, cwd=folder)
        if done.returncode != 0:
            return command[1] + done.stdout + done.stderr
    return ""


def test_the_tools_find_no_fault():
    assert check(FOLDER) == ""


FAULTS = {
    "an unknown key": ("prometheus.yml", "scrape_interval", "scrap_interval"),
    "rules that are not there": ("prometheus.yml", "rules.yml", "rule.yml"),
    "a bracket": ("rules.yml", "kino_worker_up == 0", "(kino_worker_up == 0"),
    "an alert the other way round": ("rules.yml", "kino_worker_up == 0", "kino_worker_up == 1"),
    "a threshold": ("rules.yml", "kino_disk_free_bytes < 20 *", "kino_disk_free_bytes < 5 *"),
    "another moment": ("rules.yml", "for: 2m", "for: 20m"),
    "a misspelt metric": ("rules.yml", "kino_device_out ==", "kino_devices_out =="),
    "a misspelt cause": ("rules.yml", "|crash|", "|crashed|"),
    "a label that is summed away": ("rules.yml", "(instance, class, le)", "(class, le)"),
    "another severity": ("rules.yml", "labels: {severity: critical}", "labels: {severity: warning}"),
    "a receiver that is not there": ("alertmanager.yml", "receiver: webhook", "receiver: mail"),
    "a matcher": ("alertmanager.yml", 'severity="critical"', "severity critical"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(copy, fault):
    folder, edit = copy
    edit(*FAULTS[fault])
    assert check(folder) != ""


def test_every_alert_has_a_test_of_its_coming_and_of_its_staying_away():
    tests = [case for test in yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
             for case in test.get("alert_rule_test", [])]
    assert {case["alertname"] for case in tests if case.get("exp_alerts")} == set(ALERTS)
    # What comes to one node of several stays away from the others in the same test.
    waits = {name for name, rule in ALERTS.items() if "for" in rule}
    assert waits <= {case["alertname"] for case in tests if not case.get("exp_alerts")}


def test_rules_ask_for_metrics_that_there_are():
    recorded = {rule["record"] for rule in ALL if "record" in rule}
    for rule in ALL:
        assert used_metrics(rule["expr"]) <= defined_metrics(), rule
        assert set(re.findall(r"\bkino:[a-z0-9_:]+", rule["expr"])) <= recorded, rule
    assert used_metrics("rate(kino_devices_out[5m])") - defined_metrics()  # a name that is not there would be seen


def test_every_alert_says_what_it_is_and_what_to_do():
    for name, rule in ALERTS.items():
        assert set(rule["annotations"]) == {"summary", "description"} and rule["labels"]["severity"] in ("warning", "critical"), name


class Webhook:
    """Keeps the alerts that it is told of."""

    def __init__(self):
        self.alerts = []
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                webhook.alerts += json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_a_worker_that_goes_is_told_to_a_webhook_by_the_files_as_they_are_shipped(copy, tmp_path):
    """But for the addresses, and for times, which are seconds here."""
    folder, edit = copy
    frontend, webhook, alertmanager_port = Frontend(tmp_path), Webhook(), free_port()
    edit("prometheus.yml", "kino:9464", frontend.metrics_address)
    edit("prometheus.yml", "alertmanager:9093", f"127.0.0.1:{alertmanager_port}")
    edit("prometheus.yml", "interval: 15s", "interval: 1s")
    edit("rules.yml", "for: 2m", "for: 1s")
    edit("alertmanager.yml", "http://webhook:8080/", webhook.url)
    edit("alertmanager.yml", "group_wait: 10s", "group_wait: 0s")
    services = [Prometheus(folder, folder / "prometheus.yml"),
                Service(folder, "prometheus-alertmanager", "--config.file=alertmanager.yml", f"--storage.path={folder}/alerts",
                        f"--web.listen-address=127.0.0.1:{alertmanager_port}", "--cluster.listen-address=")]
    try:
        worker = FakeWorker(frontend)
        up = 'kino_worker_up{worker="cpu"}'
        eventually(lambda: [sample["value"][1] for sample in services[0].query(up) or []] == ["1"], "the worker is seen")
        worker.disconnect()
        alert = eventually(lambda: next((a for a in webhook.alerts if a["labels"]["alertname"] == "KinoWorkerDown"), None),
                           "the alert arrives")
        assert alert["status"] == "firing" and alert["labels"]["severity"] == "critical"
        assert alert["annotations"]["summary"] == f"Worker cpu (cpu) on {frontend.metrics_address} is away."
    finally:
        for service in services:
            service.stop()
        frontend.stop()
        webhook.server.shutdown()


def test_the_text_of_a_frontend_is_as_prometheus_wants_it(tmp_path):
    frontend = Frontend(tmp_path)
    done = run("bash", "-c", f"curl -s http://{frontend.metrics_address}/metrics | promtool check metrics")
    assert done.returncode == 0 and not done.stdout + done.stderr
    assert frontend.stop() == 0
