"""ops/: Prometheus' configuration and alerts, checked by promtool and run by Prometheus against the real thing."""

import os
import re

import pytest
import requests
import yaml
from harness import metrics
from harness.broker import Broker
from harness.broker import missing as broker_missing
from harness.consul import ROOT
from harness.process import Child
from harness.wait import free_port, wait_until

OPS = os.path.join(ROOT, "ops")
pytestmark = pytest.mark.skipif(metrics.missing() is not None, reason=str(metrics.missing()))


def load(name):
    with open(os.path.join(OPS, name), encoding="utf-8") as file:
        return yaml.safe_load(file)


def test_the_configuration_is_valid():
    status, printed = metrics.promtool("check", "config", os.path.join(OPS, "prometheus.yml"))
    assert status == 0 and "FAILED" not in printed, printed


def test_the_alerts_fire_when_they_should_and_not_before():
    status, printed = metrics.promtool("test", "rules", os.path.join(OPS, "alerts_test.yml"))
    assert status == 0, printed


def readme():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        return file.read()


def test_every_alert_is_tested():
    names = {rule["alert"] for group in load("alerts.yml")["groups"] for rule in group["rules"]}
    tested = {case["alertname"] for test in load("alerts_test.yml")["tests"]
              for case in test.get("alert_rule_test", []) if case["exp_alerts"]}
    assert tested == names


def test_every_alert_has_its_runbook_in_the_readme():
    alerts = {rule["alert"]: rule for group in load("alerts.yml")["groups"] for rule in group["rules"]}
    chapter = readme().partition("### Alerts\n")[2].partition("\n### ")[0]
    _, *parts = re.split(r"^#### (\w+)$", chapter, flags=re.MULTILINE)
    books = dict(zip(parts[::2], parts[1::2]))
    assert set(books) == set(alerts)
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == "README.md#" + name.lower()
        assert books[name].strip().lower().startswith(rule["labels"]["severity"] + ","), name
        for word in ("**Means**", "**Look**", "**Do**"):
            assert word in books[name], name


def test_every_link_inside_the_readme_leads_somewhere():
    outside_code = re.sub(r"`[^`\n]*`", lambda code: code.group().strip("`"), readme())
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
               for title in re.findall(r"^#+ (.*)$", outside_code, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([^)]*)\)", outside_code))
    assert links and links <= anchors, links - anchors


def queries():
    """What "What to watch" asks Prometheus."""
    table = readme().partition("### What to watch\n")[2].partition("####")[0]
    return [query for row in re.findall(r"^\|[^|]+\| (`.+?`) \|", table, re.MULTILINE)
            for query in re.findall(r"`([^`]+)`", row)]


class Prometheus:
    """Debian's Prometheus with ops/prometheus.yml, but for the addresses and the patience."""

    def __init__(self, folder, targets):
        self.port, folder = free_port(), str(folder)
        config = load("prometheus.yml")
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [os.path.join(OPS, "alerts.yml")]
        for job in config["scrape_configs"]:
            static = job["static_configs"][0]
            static["targets"] = [targets[target] for target in static["targets"]]
        self.jobs = {job["job_name"] for job in config["scrape_configs"]}
        path = os.path.join(folder, "prometheus.yml")
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump(config, file)
        self.child = Child("prometheus", [
            "prometheus", "--config.file=" + path,
            "--storage.tsdb.path=" + os.path.join(folder, "prometheus"),
            "--web.listen-address=127.0.0.1:%d" % self.port], dict(os.environ),
            os.path.join(folder, "prometheus.log"))

    def api(self, path, **params):
        reply = requests.get("http://127.0.0.1:%d/api/v1/%s" % (self.port, path), params=params, timeout=20)
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]

    def query(self, expression):
        """The number that a query gives; None for none."""
        result = self.api("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None

    def up(self):
        return {target["labels"]["job"] for target in self.api("targets")["activeTargets"]
                if target["health"] == "up"}

    def alerts(self):
        return {(alert["labels"]["alertname"], alert["state"]) for alert in self.api("alerts")["alerts"]}


@pytest.fixture
def prometheus_broker(tmp_path):
    """A RabbitMQ of the test's own, with the plugin that shows its metrics."""
    if broker_missing():
        pytest.skip(broker_missing())
    node = Broker(tmp_path / "broker", prometheus=True)
    try:
        yield node.start()
    finally:
        node.close()


@pytest.mark.slow
def test_prometheus_watches_both_services_and_rabbitmq(prometheus_broker, make_stack, tmp_path):
    stack = make_stack(vhost=prometheus_broker.root()).start()
    prometheus = Prometheus(tmp_path, {
        "service-soirees:3003": "127.0.0.1:%d" % stack.soirees.port,
        "service-playlists:3002": "127.0.0.1:%d" % stack.playlists.port,
        "rabbitmq:15692": "127.0.0.1:%d" % prometheus_broker.prometheus_port})
    prometheus.child.start()
    try:
        stack.linked(stack.book()["id"])
        stack.vhost.publish(b"hopeless")
        wait_until(lambda: prometheus.up() == prometheus.jobs, 60, "all targets are up")
        confirmed = 'soirees_publishes_total{job="soirees",outcome="confirmed"}'
        wait_until(lambda: prometheus.query(confirmed) == 1, 60, "a query answers")
        wait_until(lambda: ("DeadLetters", "pending") in prometheus.alerts(), 60, "the dead letter is seen")
        assert prometheus.query('playlists_created_total{origine="lagmaster-pro"}') == 1
        # each metric that an alert is about is one that somebody shows
        rules = [re.sub('"[^"]*"', "", rule["expr"])
                 for group in load("alerts.yml")["groups"] for rule in group["rules"]]
        for name in {name for rule in rules for name in re.findall(r"\b[a-z]+_[a-z_]+\b", rule)}:
            assert prometheus.query("count(%s)" % name), name
        assert {name for name, _state in prometheus.alerts()} == {"DeadLetters"}
        assert len(queries()) > 15
        for query in queries():
            wait_until(lambda query=query: prometheus.api("query", query=query)["result"], 30, query)
        stack.playlists.stop()
        wait_until(lambda: ("ServiceDown", "pending") in prometheus.alerts()
                   and ("NoConsumer", "pending") in prometheus.alerts(), 60, "its absence is seen")
    finally:
        prometheus.child.kill()
