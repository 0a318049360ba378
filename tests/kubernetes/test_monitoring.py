"""Metrics, rules and dashboard of k8s/components/monitoring, by what real programs show to a real Prometheus."""

import copy
import os
import re
import signal
import urllib.request

import pytest
from ids import ENRICH, Topics, event
from monitoring import DASHBOARD, GROUPS, RULES, targets
from pods import await_until
from prometheus_client.parser import text_string_to_metric_families
from prometheus_server import PrometheusServer

from benchmarks.sizing import Shape
from benchmarks.sizing import series as series_of
from bridge.local.fluentd import Fluentd, configuration, plugin
from bridge.local.processes import free_port, listening
from bridge.local.sidecar import Sidecar
from bridge.local.topics import produce

NAMESPACE = "ads"
VARIABLES = {"$__rate_interval": "10s", "$namespace": NAMESPACE, "$pod": ".+"}
WORDS = {"and", "or", "unless", "offset", "bool"}


def metrics_of(expression):
    """Return the names of metrics in an expression."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\b(by|on|without|ignoring|group_left) *\([^)]*\)", "", text)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    return set(re.findall(r"\b[a-z_]\w*\b(?! *\()", text)) - WORDS


def test_names_are_found_in_expressions():
    assert metrics_of(
        'sum by (pod) (rate(a_total{b="c_d"}[5m])) / 2 unless on (e) f_g > 0 or h offset 1m'
    ) == {"a_total", "f_g", "h"}


def shown():
    """Return what is asked for on the dashboard: panels and annotations, each with an expression."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def filled_in(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


class Pod:
    """What a pod runs, on a road, with the ports that the PodMonitor names."""

    def __init__(self, road, folder, kafka, topics):
        folder.mkdir()
        self.name = f"{road}-0"
        self.filters = folder / "filters"
        self.filters.mkdir()
        (self.filters / "enrich.py").write_text(ENRICH)
        # Two workers have the next port, too.
        self.port = next(port for port in iter(free_port, None) if not listening(port + 1))
        socket = folder / "sidecar.sock"
        self.fluentd = Fluentd(
            folder,
            {
                "ROAD": road,
                "METRICS_BIND": "127.0.0.1",
                "METRICS_PORT": str(self.port),
                "FLUENTD_WORKERS": "1" if road == "forward" else "2",
                "KAFKA_BROKERS": kafka.bootstrap,
                "KAFKA_GROUP": f"{topics.group}-{road}",
                "INPUT_TOPICS": topics.input,
                "OUTPUT_TOPIC": topics.output,
                "DEAD_LETTER_TOPIC": topics.dead,
                "SIDECAR_SOCKET": str(socket),
                "FORMAT": "text",
            },
            conf=configuration("pod"),
            arguments=plugin(),
        )
        settings = {"filters.payload": "json", "workers.count": 1, "filters.reload_interval": 0.2}
        if road == "forward":
            settings["downstream.port"] = self.fluentd.return_port
        else:
            settings |= {"listen.enabled": "false", "rpc.socket": socket}
            self.fluentd._listens = False
        self.sidecar = Sidecar(self.filters, folder, settings)
        self.fluentd.settings["SIDECAR_PORT"] = str(self.sidecar.port)

    def start(self):
        self.sidecar.start()
        self.fluentd.start()

    def kill(self):
        self.fluentd.kill()
        self.sidecar.kill()

    def targets(self):
        ports = {"admin": self.sidecar.admin, "metrics": self.port}
        return targets(NAMESPACE, self.name, "127.0.0.1", **ports)

    def names(self):
        """Return the names of all series, a histogram's parts included, that the PodMonitor's paths show."""
        found = set()
        for *_, address, path in self.targets():
            with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
                text = answer.read().decode()
            for family in text_string_to_metric_families(text):
                found |= {sample.name for sample in family.samples}
        return found


def soon(condition, explain=str):
    await_until(condition, explain, 30)


@pytest.fixture(scope="module")
def pods(kafka, tmp_path_factory):
    """Return a pod of each road, busy."""
    if why := Fluentd.missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("monitoring")
    topics = Topics(kafka, f"monitoring-{os.getpid()}", 3)
    made = [Pod(road, folder / road, kafka, topics) for road in ("exactly-once", "forward")]
    try:
        for pod in made:
            pod.start()
        produce(kafka.bootstrap, topics.input, map(event, range(20_000)), partitions=3)
        for pod in made:  # so that there is a restart to be shown
            soon(lambda pod=pod: pod.sidecar.metrics()["fluent_bridge_error_events_total"] >= 40)
            os.kill(pod.sidecar.worker_pids[0], signal.SIGKILL)
            soon(lambda pod=pod: pod.sidecar.metrics()["fluent_bridge_ready_workers"] == 1)
        # The state of outputs is taken every 10 s.
        soon(lambda: all("fluentd_output_status_emit_count" in pod.names() for pod in made))
        yield made
    finally:
        for pod in made:
            pod.kill()
        topics.delete()


def without_waiting():
    """Return the rules such that alerts fire at once."""
    groups = copy.deepcopy(GROUPS)
    for group in groups["groups"]:
        for rule in group["rules"]:
            del rule["for"]
    return groups


@pytest.fixture(scope="module")
def prometheus(pods, tmp_path_factory):
    if why := PrometheusServer.missing():
        pytest.skip(why)
    scraped = [target for pod in pods for target in pod.targets()]
    folder = tmp_path_factory.mktemp("prometheus")
    with PrometheusServer(folder, scraped, without_waiting(), interval="1s") as one:
        yield one


@pytest.mark.fluentd
@pytest.mark.kafka
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("pods")
class TestReal:
    def test_every_metric_exists(self, pods):
        exposed = {"up"}.union(*(pod.names() for pod in pods))
        asked = {f"alert {name}": rule["expr"] for name, rule in RULES.items()}
        asked |= {f"{title}: {expr}": expr for title, expr in shown()}
        missing = {
            where: names for where, expr in asked.items() if (names := metrics_of(expr) - exposed)
        }
        assert not missing

    def test_every_panel_shows_something(self, prometheus):
        def empty():
            return [
                (title, expr)
                for title, expr in shown()
                if not prometheus.query(filled_in(expr)) and title != "Filters do not load"
            ]

        soon(lambda: not empty(), empty)

    def test_a_pod_has_as_many_series_as_the_sizing_says(self, prometheus, figures):
        query = 'count({pod="exactly-once-0", app_kubernetes_io_name="fluent-bridge"})'
        soon(lambda: prometheus.query('fluent_bridge_kafka_lag{pod="exactly-once-0"}'))
        [(_, found)] = [one["value"] for one in prometheus.query(query)]
        said = series_of(Shape(fluentd=2, sidecar=1), filters=1, partitions=3)
        figures(f"{found} series of a pod with two workers of Fluentd, {said} in the sizing")
        # A worker was killed, which makes two; partitions may have moved, whose former owner keeps theirs.
        assert abs(int(found) - said) <= 8

    def test_rules_run_and_are_quiet(self, prometheus):
        soon(lambda: prometheus.query('up{container="fluentd"}'))

        def rules():
            found = prometheus.ask("rules")["groups"]
            return [rule for group in found for rule in group["rules"]]

        soon(lambda: all(rule["lastEvaluation"] > "2000" for rule in rules()))
        assert {rule["name"]: rule.get("lastError", "") for rule in rules()} == dict.fromkeys(
            RULES, ""
        )
        assert [rule["health"] for rule in rules()] == ["ok"] * len(RULES)
        # Nobody has fewer partitions than it should, and so on.
        assert prometheus.firing() == {}

    def test_filters_that_do_not_load_raise_an_alert(self, pods, prometheus):
        file = pods[0].filters / "enrich.py"
        outdated = ("FluentBridgeFiltersOutdated", pods[0].name)
        file.write_text("import nowhere\n")
        try:
            soon(lambda: outdated in prometheus.firing(), prometheus.firing)
            alert = prometheus.firing()[outdated]
            what, event = re.search(
                r'logs (\S+) -c sidecar \| grep "(.+)"', alert["annotations"]["description"]
            ).groups()
            assert what == pods[0].name
            [*_, line] = [one for one in pods[0].sidecar.log() if event in one["event"]]
            assert any("No module named 'nowhere'" in mistake for mistake in line["mistakes"])
        finally:
            file.write_text(ENRICH)
        soon(lambda: outdated not in prometheus.firing(), prometheus.firing)
