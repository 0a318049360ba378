"""Rules and dashboard of k8s/components/monitoring: against made-up series, and against what real programs show."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml
from ids import ENRICH, Topics, event
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.sizing import Shape
from benchmarks.sizing import series as series_of
from bridge.local.fluentd import Fluentd, configuration, plugin
from bridge.local.processes import Program, free_port, listening
from bridge.local.sidecar import Sidecar
from bridge.local.topics import produce

COMPONENT = Path(__file__).parents[2] / "k8s" / "components" / "monitoring"
GROUPS = yaml.safe_load((COMPONENT / "rules.yaml").read_text())["spec"]
RULES = {rule["alert"]: rule for group in GROUPS["groups"] for rule in group["rules"]}
MONITOR = yaml.safe_load((COMPONENT / "podmonitor.yaml").read_text())["spec"]
DASHBOARD = json.loads((COMPONENT / "fluent-bridge.json").read_text())


@pytest.fixture(scope="session")
def promtool():
    """Return a function that runs promtool."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not on the PATH")

    def run(*arguments):
        done = subprocess.run(
            ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def rules_file(tmp_path):
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(GROUPS))
    return file


def test_rules_are_valid(promtool, rules_file):
    assert f"{len(RULES)} rules found" in promtool("check", "rules", rules_file)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_alert_says_what_to_do(rule):
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["for"]
    assert set(rule["annotations"]) == {"summary", "description"}
    assert "kubectl -n {{ $labels.namespace }} " in rule["annotations"]["description"]


# ---------------------------------------------------------------------------------- made-up series

POD = {"namespace": "ads", "job": "ads/fluent-bridge", "pod": "fluent-bridge-0"}
OTHER = POD | {"pod": "fluent-bridge-1"}
OURS = POD | {"app_kubernetes_io_name": "fluent-bridge"}
GROUP = {"group": "ads"}
FLUENTD = POD | GROUP | {"container": "fluentd", "worker": "0"}
JOB = {"namespace": "ads", "job": "ads/fluent-bridge"}


def series(name, values, labels, **more):
    text = ",".join(f'{key}="{value}"' for key, value in (labels | more).items())
    return {"series": f"{name}{{{text}}}", "values": values}


def lag(values, labels=FLUENTD, partition=0):
    return series("fluent_bridge_kafka_lag", values, labels, topic="ad", partition=partition)


def consumed(values, labels=FLUENTD):
    return series("fluent_bridge_kafka_consumed_events_total", values, labels)


def units(outcome, values):
    return series("fluent_bridge_kafka_units_total", values, FLUENTD, outcome=outcome)


def emitted(values, **labels):
    return series(
        "fluentd_output_status_emit_count", values, OURS | {"container": "fluentd"}, **labels
    )


def up(values, container="sidecar", labels=OURS):
    return series("up", values, labels, container=container)


def errors(share):
    return [
        series("fluent_bridge_received_events_total", "0+6000x60", POD),
        series("fluent_bridge_error_events_total", f"0+{6000 * share}x60", POD),
    ]


def restarts(values, reason="killed"):
    return series("fluent_bridge_worker_restarts_total", values, POD, reason=reason)


def refused(values):
    return series("fluentd_output_status_emit_records", values, POD, plugin_id="refused_to_kafka")


def workers(values="2x60"):
    return series("fluent_bridge_ready_workers", values, POD)


# An alert, a minute, series with a value a minute, and the labels with which it fires then; None: it does not.
CASES = [
    ("FluentBridgeDown", 7, [up("1 0x20")], OURS | {"container": "sidecar"}),
    ("FluentBridgeDown", 5, [up("1 0x20")], None),
    ("FluentBridgeDown", 7, [up("0x20", labels=POD)], None),  # somebody else's
    (
        "FluentBridgeAllDown",
        6,
        [up("0x20", "fluentd"), up("0x20", "fluentd", OURS | OTHER)],
        JOB | {"container": "fluentd"},
    ),
    ("FluentBridgeAllDown", 6, [up("0x20"), up("1x20", labels=OURS | OTHER)], None),
    (
        "FluentBridgeContainerRestarts",
        9,
        [
            series(
                "process_start_time_seconds",
                "1 1 200 200 400 400 600x10",
                OURS,
                container="sidecar",
            )
        ],
        POD | {"container": "sidecar"},
    ),
    (
        "FluentBridgeContainerRestarts",
        9,
        [emitted("9 0 _ 9 0 9 0x10", plugin_id="to_kafka", type="bridge_kafka")],
        POD | {"container": "fluentd"},
    ),
    (  # a pod that was replaced three times has other addresses
        "FluentBridgeContainerRestarts",
        9,
        [
            series(
                "process_start_time_seconds",
                f"{'_ ' * n}{n}x3",
                OURS,
                container="sidecar",
                instance=n,
            )
            for n in range(4)
        ],
        None,
    ),
    ("FluentBridgeWorkerRestarts", 10, [workers(), restarts("_x5 3x20")], POD),
    ("FluentBridgeWorkerRestarts", 10, [workers(), restarts("0x5 2x20")], None),
    ("FluentBridgeWorkerRestarts", 40, [workers(), restarts("3x60")], None),  # long ago
    (  # the reasons together
        "FluentBridgeWorkerRestarts",
        10,
        [workers(), restarts("_x5 2x20"), restarts("_x5 1x20", "deadline")],
        POD,
    ),
    ("FluentBridgeBehind", 25, [lag("70000x60"), consumed("0+6000x60")], JOB | GROUP),
    ("FluentBridgeBehind", 25, [lag("50000x60"), consumed("0+6000x60")], None),
    ("FluentBridgeBehind", 25, [lag("3x60"), consumed("7x60")], None),  # markers, nothing to read
    (  # moved: the former owner's is 0
        "FluentBridgeBehind",
        25,
        [
            lag("70000x5 0x60"),
            lag("_x5 70000x60", FLUENTD | OTHER),
            consumed("0+6000x60"),
            consumed("0+0x60", FLUENTD | OTHER),
        ],
        JOB | GROUP,
    ),
    ("FluentBridgeLagGrowing", 50, [lag("0+200x60"), consumed("0+6000x60")], JOB | GROUP),
    ("FluentBridgeLagGrowing", 50, [lag("9000x60"), consumed("0+6000x60")], None),
    ("FluentBridgeLagGrowing", 50, [lag("0+100x60"), consumed("0+6000x60")], None),  # 1.7 %
    (
        "FluentBridgeStalled",
        20,
        [lag("0x2 500x60"), consumed("7x60")],
        POD | {"worker": "0"},
    ),
    ("FluentBridgeStalled", 20, [lag("0x2 500x60")], POD | {"worker": "0"}),  # never committed
    ("FluentBridgeStalled", 20, [lag("50x60"), consumed("7x60")], None),
    ("FluentBridgeStalled", 20, [lag("500x60"), consumed("7+1x60")], None),
    (
        "FluentBridgeStalled",  # the others go on
        20,
        [lag("500x60"), lag("500x60", FLUENTD | OTHER), consumed("7+1x60", FLUENTD | OTHER)],
        POD | {"worker": "0"},
    ),
    (
        "FluentBridgeBatchesAborted",
        30,
        [units("committed", "0+9x60"), units("aborted", "0+1x60")],
        POD,
    ),
    ("FluentBridgeBatchesAborted", 30, [units("aborted", "0+1x60")], POD),
    (
        "FluentBridgeBatchesAborted",
        30,
        [units("committed", "0+99x60"), units("aborted", "0+1x60")],
        None,
    ),
    (
        "FluentBridgeNoPartitions",
        20,
        [emitted("0x60", type="bridge_kafka", plugin_id="to_kafka")],  # it never joined
        POD,
    ),
    (
        "FluentBridgeNoPartitions",
        20,
        [
            emitted("0x60", type="bridge_kafka", plugin_id="to_kafka"),
            series("fluent_bridge_kafka_assigned_partitions", "0x60", FLUENTD),
        ],
        POD,
    ),
    (  # one of two workers has some
        "FluentBridgeNoPartitions",
        20,
        [
            emitted("0x60", type="bridge_kafka", plugin_id="to_kafka"),
            series("fluent_bridge_kafka_assigned_partitions", "0x60", FLUENTD),
            series("fluent_bridge_kafka_assigned_partitions", "1x60", FLUENTD | {"worker": "1"}),
        ],
        None,
    ),
    (  # road forward: nobody knows
        "FluentBridgeNoPartitions",
        20,
        [emitted("0x60", type="kafka2", plugin_id="to_kafka")],
        None,
    ),
    ("FluentBridgeDeadLetters", 25, errors(0.02), JOB),
    ("FluentBridgeDeadLetters", 25, errors(0.005), None),
    (
        "FluentBridgeRefusedByKafka",
        10,
        [refused("0x5 1x30")],
        POD,
    ),
    (
        "FluentBridgeRefusedByKafka",
        10,
        [series("fluentd_output_status_emit_records", "0+9x30", POD, plugin_id="to_kafka")],
        None,
    ),
    (
        "FluentBridgeBufferFilling",
        20,
        [
            series(
                "fluentd_output_status_buffer_available_space_ratio",
                "19.5x30",
                OURS,
                plugin_id="to_kafka",
            )
        ],
        POD | {"plugin_id": "to_kafka"},
    ),
    (
        "FluentBridgeBufferFilling",
        20,
        [
            series(
                "fluentd_output_status_buffer_available_space_ratio",
                "99.9x30",
                OURS,
                plugin_id="to_kafka",
            )
        ],
        None,
    ),
    (
        "FluentBridgeFiltersOutdated",
        5,
        [series("fluent_bridge_filters_outdated", "0 1x9", POD)],
        POD,
    ),
    (
        "FluentBridgeFiltersOutdated",
        5,
        [series("fluent_bridge_filters_outdated", "0x9", POD)],
        None,
    ),
    (
        "FluentBridgeReloadsFail",
        30,
        [series("fluent_bridge_filter_reloads_total", "0x5 1x5 2x5 4x30", POD, result="failed")],
        POD,
    ),
    (
        "FluentBridgeReloadsFail",
        30,
        [
            series("fluent_bridge_filter_reloads_total", "0x5 1x30", POD, result="failed"),
            series("fluent_bridge_filter_reloads_total", "0+1x40", POD, result="ok"),
        ],
        None,
    ),
    (
        "FluentBridgeFiltersDiffer",
        35,
        [
            series("fluent_bridge_filters_info", "1x60", POD, digest="a", generation=1),
            series("fluent_bridge_filters_info", "1x60", OTHER, digest="b", generation=1),
        ],
        JOB,
    ),
    (
        "FluentBridgeFiltersDiffer",
        35,
        [
            series("fluent_bridge_filters_info", "1x60", POD, digest="a", generation=1),
            series("fluent_bridge_filters_info", "1x60", OTHER, digest="a", generation=2),
        ],
        None,
    ),
    # Somebody else's.
    ("FluentBridgeAllDown", 6, [up("0x20", labels=POD)], None),
    (
        "FluentBridgeContainerRestarts",
        9,
        [series("process_start_time_seconds", "1 2 3 4 5 6x9", POD, container="sidecar")],
        None,
    ),
    (
        "FluentBridgeBufferFilling",
        20,
        [
            series(
                "fluentd_output_status_buffer_available_space_ratio",
                "1x30",
                POD,
                plugin_id="theirs",
            )
        ],
        None,
    ),
    # Once is nothing, and long ago neither.
    (
        "FluentBridgeContainerRestarts",
        9,
        [series("process_start_time_seconds", "1 2x20", OURS, container="sidecar")],
        None,
    ),
    (
        "FluentBridgeContainerRestarts",
        60,
        [
            series("process_start_time_seconds", "1 2 3 4 5 6x99", OURS, container="sidecar"),
            emitted("9 0 9 0 9 0 9 0x99", plugin_id="to_kafka"),
        ],
        None,
    ),
    ("FluentBridgeRefusedByKafka", 10, [refused("0x20")], None),
    ("FluentBridgeRefusedByKafka", 40, [refused("0x5 1x60")], None),
    # Few messages are no lag.
    ("FluentBridgeBehind", 25, [lag("900x60"), consumed("0+60x60")], None),
    ("FluentBridgeBehind", 25, [lag("1100x60"), consumed("0+60x60")], JOB | GROUP),
    ("FluentBridgeLagGrowing", 70, [lag("0+10x99"), consumed("0+60x99")], None),
    ("FluentBridgeLagGrowing", 50, [lag("900+10x60"), consumed("0+60x60")], JOB | GROUP),
    # It has ceased to grow.
    ("FluentBridgeLagGrowing", 70, [lag("0+2000x30 60000x60"), consumed("0+6000x99")], None),
    # It committed until 20 minutes ago.
    ("FluentBridgeStalled", 30, [lag("500x60"), consumed("0+9x10 90x60")], POD | {"worker": "0"}),
    (
        "FluentBridgeBatchesAborted",
        30,
        [units("committed", "0+98x60"), units("aborted", "0+2x60")],
        None,
    ),
    (  # a burst is over
        "FluentBridgeBatchesAborted",
        60,
        [units("committed", "0+9x99"), units("aborted", "0+9x20 180x99")],
        None,
    ),
    (  # several pipelines in a namespace
        "FluentBridgeFiltersDiffer",
        35,
        [
            series(
                "fluent_bridge_filters_info",
                "1x60",
                POD,
                digest=name,
                app_kubernetes_io_instance=name,
            )
            for name in ("ads", "clicks")
        ],
        None,
    ),
]


def test_every_alert_is_seen_to_fire_and_not_to():
    assert {name for name, *_, labels in CASES if labels} == set(RULES)
    assert {name for name, *_, labels in CASES if labels is None} == set(RULES)


@pytest.mark.parametrize(
    ("name", "minute", "given", "labels"),
    CASES,
    ids=[
        f"{name}-{'fires' if labels else 'quiet'}-{n}" for n, (name, *_, labels) in enumerate(CASES)
    ],
)
def test_alerts(promtool, rules_file, tmp_path, name, minute, given, labels):
    expected = []
    if labels is not None:
        rule = RULES[name]
        used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert used <= set(labels), "an annotation names a label that the alert does not have"
        every = {
            "__name__": "ALERTS",
            "alertname": name,
            "alertstate": "firing",
            **labels,
            **rule["labels"],
        }
        text = ",".join(f'{key}="{value}"' for key, value in every.items())
        expected = [{"labels": f"{{{text}}}", "value": 1}]
    test = {
        "rule_files": [str(rules_file)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "promql_expr_test": [
                    {
                        "expr": f'ALERTS{{alertname="{name}", alertstate="firing"}}',
                        "eval_time": f"{minute}m",
                        "exp_samples": expected,
                    }
                ],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    promtool("test", "rules", file)


# ------------------------------------------------------------------------------------ real programs

NAMESPACE = "ads"
VARIABLES = {"$__rate_interval": "10s", "$namespace": NAMESPACE, "$pod": ".+"}
WORDS = {"and", "or", "unless", "offset", "bool"}


def metrics_of(expression):
    """Return the names of metrics in an expression."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\b(by|on|without|ignoring|group_left) *\([^)]*\)", "", text)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    return set(re.findall(r"\b[a-z_]\w*\b(?! *\()", text)) - WORDS


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

    def port_of(self, name):
        return {"admin": self.sidecar.admin, "metrics": self.port}[name]

    def names(self):
        """Return the names of all series, a histogram's parts included, that the PodMonitor's paths show."""
        found = set()
        for endpoint in MONITOR["podMetricsEndpoints"]:
            url = f"http://127.0.0.1:{self.port_of(endpoint['port'])}{endpoint['path']}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                text = answer.read().decode()
            for family in text_string_to_metric_families(text):
                found |= {sample.name for sample in family.samples}
        return found


class Prometheus:
    """A real one, that scrapes pods as the operator would have it, and evaluates the rules without waiting."""

    def __init__(self, folder, pods):
        self._port = free_port()
        label = MONITOR["podTargetLabels"][0].replace(".", "_").replace("/", "_")
        containers = {"admin": "sidecar", "metrics": "fluentd"}
        jobs = [
            {
                "job_name": f"{NAMESPACE}/fluent-bridge/{endpoint['port']}",
                "metrics_path": endpoint["path"],
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{pod.port_of(endpoint['port'])}"],
                        "labels": {
                            "namespace": NAMESPACE,
                            "job": f"{NAMESPACE}/fluent-bridge",
                            "pod": pod.name,
                            "container": containers[endpoint["port"]],
                            label: "fluent-bridge",
                        },
                    }
                    for pod in pods
                ],
            }
            for endpoint in MONITOR["podMetricsEndpoints"]
        ]
        groups = json.loads(json.dumps(GROUPS))
        for group in groups["groups"]:
            for rule in group["rules"]:
                del rule["for"]
        (folder / "rules.yaml").write_text(yaml.safe_dump(groups))
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": jobs,
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        self._program = Program(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            log=folder / "prometheus.log",
        )

    def start(self):
        self._program.start(self._ready, timeout=30)

    def _ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def kill(self):
        self._program.kill()

    def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def firing(self):
        return {alert["labels"]["alertname"]: alert for alert in self.ask("alerts")["alerts"]}


def soon(condition, timeout=30):
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


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


@pytest.fixture(scope="module")
def prometheus(pods, tmp_path_factory):
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not on the PATH")
    one = Prometheus(tmp_path_factory.mktemp("prometheus"), pods)
    try:
        one.start()
        yield one
    finally:
        one.kill()


REAL = [pytest.mark.fluentd, pytest.mark.kafka, pytest.mark.timeout(240)]


def test_names_are_found_in_expressions():
    assert metrics_of(
        'sum by (pod) (rate(a_total{b="c_d"}[5m])) / 2 unless on (e) f_g > 0 or h offset 1m'
    ) == {"a_total", "f_g", "h"}


@pytest.mark.usefixtures("pods")
class TestReal:
    pytestmark = REAL

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

        end = time.monotonic() + 30
        while (missing := empty()) and time.monotonic() < end:
            time.sleep(0.5)
        assert not missing

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
        assert set(prometheus.firing()) == set()

    def test_filters_that_do_not_load_raise_an_alert(self, pods, prometheus):
        file = pods[0].filters / "enrich.py"
        file.write_text("import nowhere\n")
        try:
            alert = soon(lambda: prometheus.firing().get("FluentBridgeFiltersOutdated"))
            assert alert["state"] == "firing"
            assert alert["labels"]["pod"] == pods[0].name
            assert f"exec {pods[0].name} -c sidecar" in alert["annotations"]["description"]
        finally:
            file.write_text(ENRICH)
        soon(lambda: "FluentBridgeFiltersOutdated" not in prometheus.firing())
