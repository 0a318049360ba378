"""The input bridge_kafka in a real Fluentd: failures in the pipeline, of the broker and of replicas."""

import functools
import itertools
import os
import re
import signal
import time
import urllib.request
import uuid
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from confluent_kafka.cimpl import Consumer, TopicPartition

import bridge.local.kafka
from bridge.local.fluentd import Fluentd, plugin
from bridge.local.kafka import KafkaBroker
from bridge.local.topics import TopicReader, produce

pytestmark = [pytest.mark.fluentd, pytest.mark.usefixtures("unit_of_work")]

SETTLE = 2  # seconds without a message after the last one awaited

# What happens to a batch is written to a file: `raise`, `sleep` and seconds, or nothing. With `once` it is
# for the first who reads it.
OBEY = """
require 'fluent/plugin/filter'
require 'fluent/plugin/output'
module Obedience
  def self.included(plugin)
    plugin.config_param :orders, :string
  end
  def obey
    once, (order, seconds) = File.read(orders).split.partition { |word| word == 'once' }
    File.write(orders, '') unless once.empty?
    raise 'as ordered' if order == 'raise'
    return unless order == 'sleep'
    log.info 'sleeps'
    ends = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds.to_f
    # Fluentd wakes sleeping threads up when it stops (plugin_helper/thread.rb, stop).
    sleep 0.1 while Process.clock_gettime(Process::CLOCK_MONOTONIC) < ends
  end
end
class ObedientFilter < Fluent::Plugin::Filter
  Fluent::Plugin.register_filter('obey', self)
  include Obedience
  def filter_stream(_tag, events)
    obey
    events
  end
end
class ObedientOutput < Fluent::Plugin::Output
  Fluent::Plugin.register_output('obey', self)
  include Obedience
  def multi_workers_ready? = true
  def process(_tag, _events) = obey
end
"""

CONF = """
<system>
  workers {workers}
  {system}
</system>
<source>
  @type bridge_kafka
  @label @UNIT
  brokers {brokers}
  topics {input}
  consumer_group {group}
  {source}
</source>
<label @UNIT>
  {pipeline}
</label>
{more}
"""
TO_KAFKA = """
    @type bridge_kafka
    topic {output}
    <format>
      @type single_value
    </format>
"""
FILTERED = "<filter **>\n@type obey\norders {orders}\n</filter>\n<match **>" + TO_KAFKA + "</match>"
COPIED = (
    "<match **>\n@type copy\n<store>"
    + TO_KAFKA
    + "</store>\n<store>\n@type obey\norders {orders}\n</store>\n</match>"
)
RELABELED = "<match **>\n@type relabel\n@label @LAST\n</match>"
LAST = "<label @LAST>\n" + COPIED + "\n</label>\n"
ERROR = (
    "<label @ERROR>\n<match **>"
    + TO_KAFKA.replace("{output}", "{output}-error")
    + "</match>\n</label>\n"
)


class Road:
    """Topics of its own, and replicas of Fluentd in one group."""

    def __init__(self, kafka, folder, partitions):
        self.kafka = kafka
        self.group = f"road-{uuid.uuid4().hex[:12]}"
        self.input, self.output = f"{self.group}-in", f"{self.group}-out"
        self.errors = f"{self.output}-error"
        self.partitions = partitions
        self.orders = folder / "orders"
        self.order("")
        self._replicas = []
        self._folder = folder
        (folder / "plugins").mkdir()
        (folder / "plugins" / "filter_obey.rb").write_text(OBEY)
        (folder / "plugins" / "out_obey.rb").write_text("require_relative 'filter_obey'")

    def create(self):
        for topic in (self.input, self.output, self.errors):
            self.kafka.create_topic(topic, self.partitions)

    def order(self, what):
        self.orders.write_text(what)

    def replica(
        self, name="one", source="", pipeline=FILTERED, more="", system="", brokers="", workers=1
    ):
        names = {"output": self.output, "orders": self.orders}
        conf = self._folder / f"{name}.conf"
        conf.write_text(
            CONF.format(
                workers=workers,
                system=system,
                brokers=brokers or self.kafka.bootstrap,
                input=self.input,
                group=self.group,
                source=source
                if "transactional_id" in source
                else f"{source}\n  transactional_id {self.group}-{name}",
                pipeline=pipeline.format(**names),
                more=more.format(**names),
            )
        )
        arguments = [*plugin(), "-p", str(self._folder / "plugins")]
        self._replicas.append(
            Fluentd(self._folder / name, {}, conf=conf, arguments=arguments, listens=False)
        )
        return self._replicas[-1]

    def kill(self):
        for fluentd in self._replicas:
            fluentd.kill()

    def produce(self, numbers):
        produce(
            self.kafka.bootstrap,
            self.input,
            [b"%d" % number for number in numbers],
            partitions=self.partitions,
        )

    def read(self, count, timeout=60):
        """Read the output until it holds so many numbers and nothing more came → all of them."""
        found = []
        last = started = time.monotonic()
        with TopicReader(self.kafka.bootstrap, [self.output]) as reader:
            while len(set(found)) < count or time.monotonic() < last + SETTLE:
                if messages := reader.read(0.2):
                    last = time.monotonic()
                found += [int(message.value) for message in messages]
                if time.monotonic() > started + timeout:
                    break
        return found

    def expect_once(self, count, **options):
        counts = Counter(self.read(count, **options))
        assert sorted(set(range(count)) - set(counts)) == [], "missing"
        assert [number for number, times in counts.items() if times > 1] == [], "twice"

    def committed(self):
        """Return how many messages the group has committed."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": self.group})
        places = [TopicPartition(self.input, number) for number in range(self.partitions)]
        try:
            return sum(max(place.offset, 0) for place in consumer.committed(places, timeout=15))
        finally:
            consumer.close()

    def members(self):
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        return len(admin.describe_consumer_groups([self.group])[self.group].result(15).members)


def wait_for(condition, timeout=60.0):
    """Ask until it holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def complaints(fluentd):
    """Return the lines of its log that are warnings, errors, or traces of a stack."""
    return [
        line
        for line in fluentd.output().splitlines()
        if re.search(r"\[(warn|error|fatal)\]|^\s+\S+\.rb:\d+:in ", line)
        # No label @ERROR is what some of these tests are about.
        and "there is no <label @ERROR>" not in line
    ]


@pytest.fixture
def make_road(tmp_path):
    made = []

    def make(kafka, partitions=2):
        made.append(Road(kafka, tmp_path, partitions))
        made[-1].create()
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def road(make_road, kafka):
    return functools.partial(make_road, kafka)


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize(
    ("pipeline", "more"),
    [
        pytest.param(FILTERED, "", id="filter"),
        pytest.param(FILTERED, ERROR, id="filter, with an error label"),
        pytest.param(COPIED, "", id="output"),
        pytest.param(RELABELED, LAST + ERROR, id="output behind a label, with an error label"),
    ],
)
def test_a_batch_that_fails_comes_again(road, delivery, pipeline, more):
    one = road(partitions=1)
    fluentd = one.replica(
        source=f"delivery {delivery}\n  retry_wait 0.2\n  retry_max_interval 1",
        pipeline=pipeline,
        more=more,
    )
    one.order("raise")
    one.produce(range(100))
    fluentd.start()
    wait_for(lambda: fluentd.output().count("comes again") >= 4)
    assert one.committed() == 0
    seen = complaints(fluentd)
    assert all("comes again" in line and "as ordered" in line for line in seen), "\n".join(seen)
    waits = [float(re.search(r"wait=([\d.]+)", line)[1]) for line in seen]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.0]
    if delivery == "exactly_once":
        assert one.read(0) == []

    one.order("")
    if delivery == "exactly_once":
        assert one.read(100) == list(range(100))
    else:
        assert set(one.read(100)) == set(range(100))
    assert one.committed() == 100
    with TopicReader(one.kafka.bootstrap, [one.errors]) as reader:
        assert reader.read(1) == []
    assert fluentd.stop() == 0


def test_a_record_that_a_filter_fails_on_is_not_lost_without_an_error_label(road):
    one = road()
    fluentd = one.replica(
        pipeline="<filter **>\n@type record_transformer\nenable_ruby true\n<record>\n"
        "message ${{record['message'] == '13' ? raise('unlucky') : record['message']}}\n"
        "</record>\n</filter>\n" + FILTERED.split("</filter>\n")[1],
    )
    one.produce(range(20))
    fluentd.start()
    wait_for(lambda: fluentd.output().count("unlucky") >= 2)
    assert one.committed() == 0
    assert one.read(0) == []


@pytest.mark.parametrize("more", ["", ERROR], ids=["no error label", "error label"])
def test_what_cannot_be_parsed_is_kept_or_waited_for(road, more):
    one = road(partitions=1)
    fluentd = one.replica(
        source="retry_wait 0.2\n  <parse>\n@type regexp\nexpression /^(?<message>[0-8]*)$/\n</parse>",
        more=more,
    )
    one.produce(range(20))
    fluentd.start()
    if more:
        assert one.read(18) == [number for number in range(20) if number not in {9, 19}]
        with TopicReader(one.kafka.bootstrap, [one.errors]) as reader:
            assert [message.value for message in reader.read(5)] == [b"9", b"19"]
        assert one.committed() == 20
    else:
        wait_for(lambda: fluentd.output().count("payload cannot be parsed") >= 3)
        assert one.read(0) == []
        assert one.committed() == 0


def test_brokers_that_are_away_are_waited_for(road):
    one = road()
    fluentd = one.replica()
    one.kafka.stop()
    try:
        fluentd.start()
        wait_for(lambda: fluentd.output().count("no messages can be read now") >= 2)
        assert "check `brokers`" in fluentd.output()
        assert len(complaints(fluentd)) < 8, "\n".join(complaints(fluentd))
    finally:
        one.kafka.start()
    one.produce(range(1000))
    one.expect_once(1000)

    before = len(complaints(fluentd))
    one.kafka.stop()
    try:
        time.sleep(20)
    finally:
        one.kafka.start()
    one.produce(range(1000, 2000))
    one.expect_once(2000)
    assert len(complaints(fluentd)) - before < 8, "\n".join(complaints(fluentd))
    assert fluentd.stop() == 0


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "with a batch"])
def test_it_ends_while_brokers_are_away(road, delivery, busy):
    one = road()
    fluentd = one.replica(source=f"delivery {delivery}")
    one.produce(range(100))
    fluentd.start()
    one.expect_once(100)
    if busy:
        one.order("sleep 10 once")
        one.produce(range(100, 200))
        wait_for(lambda: "sleeps" in fluentd.output())
    one.kafka.stop()
    try:
        assert fluentd.stop(45) == 0
    finally:
        one.kafka.start()
    fluentd.start()
    one.produce(range(200, 300))
    if busy and delivery == "exactly_once":
        one.expect_once(300)
    else:
        assert set(range(100)) | set(range(200, 300)) <= set(one.read(300 if busy else 200))


@pytest.mark.parametrize("protocol", ["cooperative-sticky", "range", "consumer"])
def test_a_slow_pipeline_keeps_its_partitions(road, protocol):
    one = road()
    options = '{"max.poll.interval.ms":"10000"'
    options += (
        ',"group.protocol":"consumer"}'
        if protocol == "consumer"
        else f',"partition.assignment.strategy":"{protocol}"}}'
    )
    fluentd = one.replica(
        source=f"session_timeout 6\n  batch_events 50\n  consumer_options {options}"
    )
    one.produce(range(100))
    one.order("sleep 14 once")
    fluentd.start()
    wait_for(lambda: "sleeps" in fluentd.output())
    one.produce(range(100, 200))
    one.expect_once(200)
    assert fluentd.output().count("partitions assigned") == 1
    assert "partitions revoked" not in fluentd.output()
    assert complaints(fluentd) == []


@pytest.mark.parametrize("protocol", ["cooperative-sticky", "range", "consumer"])
def test_partitions_that_go_elsewhere_during_a_batch_come_out_once(road, protocol):
    one = road(partitions=4)
    option = "group.protocol" if protocol == "consumer" else "partition.assignment.strategy"
    # A batch from all partitions.
    source = f'session_timeout 10\n  batch_wait 2\n  consumer_options {{"{option}":"{protocol}"}}'
    first = one.replica("first", source)
    second = one.replica("second", source)
    one.produce(range(400))
    one.order("sleep 12 once")
    first.start()
    wait_for(lambda: "sleeps" in first.output())
    second.start()
    one.produce(range(400, 800))
    one.expect_once(800)
    assert "partitions revoked" in first.output()
    assert "partitions assigned" in second.output()
    one.produce(range(800, 1200))
    one.expect_once(1200)


@pytest.mark.parametrize("protocol", ["cooperative-sticky", "range", "consumer"])
def test_batches_fail_while_replicas_come_and_go(road, protocol):
    one = road(partitions=6)
    option = "group.protocol" if protocol == "consumer" else "partition.assignment.strategy"
    source = (
        "batch_events 100\n  retry_wait 0.1\n  threads 2\n  session_timeout 6\n"
        f'  transaction_timeout 10\n  consumer_options {{"{option}":"{protocol}"}}'
    )
    replicas = [one.replica(name, source) for name in ("first", "second", "third")]
    begin = itertools.count(0, 500)
    for replica in replicas[:2]:
        replica.start()
    for replica, act in (
        (replicas[2], Fluentd.start),
        (replicas[0], Fluentd.stop),
        (replicas[1], Fluentd.kill),
        (replicas[0], Fluentd.start),
    ):
        act(replica)
        for _ in range(8):
            number = next(begin)
            one.produce(range(number, number + 500))
            one.order("raise once")
            time.sleep(0.3)
    count = next(begin)
    one.expect_once(count, timeout=90)
    wait_for(lambda: one.committed() == count)
    assert "as ordered" in replicas[0].output() + replicas[2].output()


def test_a_batch_is_finished_when_fluentd_ends_and_another_takes_over(road):
    one = road()
    source = (
        "session_timeout 300"  # a member that does not leave would hold up the other for so long
    )
    first, second = one.replica("first", source), one.replica("second", source)
    one.produce(range(100))
    one.order("sleep 3 once")
    first.start()
    wait_for(lambda: "sleeps" in first.output())
    assert first.stop() == 0
    found = one.read(0)
    assert 0 < len(found) == len(set(found)) == one.committed()
    one.produce(range(100, 200))
    second.start()
    one.expect_once(200)
    assert complaints(first) == complaints(second) == []


def test_a_pipeline_that_hangs_does_not_hold_up_the_end(road):
    one = road()
    fluentd = one.replica()
    one.produce(range(100))
    one.order("sleep 600")
    fluentd.start()
    wait_for(lambda: "sleeps" in fluentd.output())
    assert fluentd.stop(45) == 0
    assert "is given up: it is not committed and comes again" in fluentd.output()
    one.order("")
    fluentd.start()
    one.expect_once(100)


def clients(fluentd):
    """Return how many threads of librdkafka its worker has."""
    found = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rsplit(")", 1)[1].split()[1]) != fluentd.pid:
                continue
            names = [name.read_text() for name in status.parent.glob("task/*/comm")]
        except OSError:  # it has ended meanwhile
            continue
        found += sum(name.startswith("rdk:") for name in names)
    return found


def test_a_reload_leaves_no_client_behind(road, free_port):
    one = road()
    port = free_port()
    fluentd = one.replica(system=f"rpc_endpoint 127.0.0.1:{port}")
    one.produce(range(100))
    fluentd.start()
    one.expect_once(100)
    wait_for(lambda: clients(fluentd) > 0)
    before = clients(fluentd)
    for number in range(1, 3):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/config.gracefulReload"):
            pass
        wait_for(lambda number=number: fluentd.output().count("partitions assigned") == number + 1)
        one.produce(range(number * 100, number * 100 + 100))
        one.expect_once(number * 100 + 100)
    assert one.members() == 1
    assert clients(fluentd) == before
    assert complaints(fluentd) == []


def test_nothing_is_read_while_fluentd_runs_with_source_only(road):
    one = road()
    fluentd = one.replica(system="with_source_only true")
    one.produce(range(100))
    fluentd.start()
    wait_for(lambda: "nothing is read as long as" in fluentd.output())
    time.sleep(3)
    assert one.committed() == 0
    os.kill(fluentd.pid, signal.SIGWINCH)
    one.expect_once(100)


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found = re.findall(r"^fluent_bridge_kafka_(\w+)\{(.*)\} ([\d.]+)$", text, re.MULTILINE)
    return {
        (name, *re.findall(r'(?:partition|outcome|event)="(\w+)"', labels)): float(value)
        for name, labels, value in found
    }


def test_metrics_tell_how_far_behind_it_is(road, free_port):
    one = road()
    port = free_port()
    prometheus = f"<source>\n@type prometheus\nbind 127.0.0.1\nport {port}\n</source>\n"
    fluentd = one.replica(source="batch_events 20", more=prometheus)
    one.order("raise")
    one.produce(range(100))
    fluentd.start()
    lags = [("lag", "0"), ("lag", "1")]
    wait_for(lambda: sum(metrics(port).get(lag, 0) for lag in lags) >= 50)
    wait_for(lambda: metrics(port).get(("units_total", "aborted"), 0) >= 2)
    assert metrics(port).get(("consumed_events_total",), 0) == 0
    one.order("")
    one.expect_once(100)
    wait_for(lambda: [metrics(port).get(lag) for lag in lags] == [0, 0])
    found = metrics(port)
    assert found[("consumed_events_total",)] == 100
    assert found[("units_total", "committed")] >= 5
    assert found[("assigned_partitions",)] == 2
    assert found[("rebalances_total", "assigned")] == 1


def test_large_messages_take_bounded_memory(road, figures):
    one = road(partitions=4)
    count, size = 300, 990_000  # librdkafka's own producer refuses a million by default
    fluentd = one.replica(source="batch_events 5000", pipeline="<match **>\n@type null\n</match>")
    produce(
        one.kafka.bootstrap,
        one.input,
        (os.urandom(100) * (size // 100) for _ in range(count)),
        partitions=one.partitions,
    )
    fluentd.start()
    wait_for(lambda: one.committed() == count)
    peak = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        text = status.read_text()
        if f"\nPPid:\t{fluentd.pid}\n" in text:
            peak = max(peak, int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) >> 10)
    figures(f"bridge_kafka input: {count} messages of 1 MB took {peak} MiB at most")
    assert 0 < peak < 400


def test_workers_share_the_partitions(road):
    one = road(partitions=4)
    fluentd = one.replica(workers=2, source="threads 2")
    fluentd.start()
    assigned = re.compile(r"(#\d) partitions assigned .* thread=(\d)")
    wait_for(lambda: len(set(assigned.findall(fluentd.output()))) == 4)
    one.produce(range(4000))
    one.expect_once(4000)
    assert fluentd.stop() == 0


def test_two_replicas_with_one_transactional_id_are_told_so(road):
    one = road()
    source = f"retry_wait 0.5\n  transactional_id {one.group}-both"
    replicas = [one.replica(name, source) for name in ("first", "second")]
    for replica in replicas:
        replica.start()
    wait_for(lambda: one.members() == 2)
    for begin in range(0, 1000, 100):
        one.produce(range(begin, begin + 100))
        time.sleep(0.5)
    one.expect_once(1000)
    logs = "".join(replica.output() for replica in replicas)
    assert "give each replica its own `transactional_id`" in logs


USER, PASSWORD = "alice", "open sesame"
JAAS = "org.apache.kafka.common.security"


@pytest.fixture(scope="module")
def secured(tmp_path_factory, certificates):
    """A broker that also listens with SASL and with TLS → it, and the two addresses."""
    if why := KafkaBroker.missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("secured")
    ports = [bridge.local.kafka.free_port() for _ in range(2)]
    plain = bridge.local.kafka.server_properties

    def properties(port, controller_port, data, **options):
        settings = plain(port, controller_port, data, **options)
        for name in ("listeners", "advertised.listeners"):
            settings[name] += f",SASL_PLAINTEXT://127.0.0.1:{ports[0]},SSL://127.0.0.1:{ports[1]}"
        settings["listener.security.protocol.map"] += ",SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL"
        mechanisms = "listener.name.sasl_plaintext"
        return {
            **settings,
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
            f"{mechanisms}.plain.sasl.jaas.config": f"{JAAS}.plain.PlainLoginModule required"
            f' user_{USER}="{PASSWORD}";',
            f"{mechanisms}.scram-sha-256.sasl.jaas.config": f"{JAAS}.scram.ScramLoginModule"
            " required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(certificates / "server.pem"),
        }

    broker = KafkaBroker(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bridge.local.kafka, "server_properties", properties)
        broker.start()
    try:
        user = UserScramCredentialUpsertion(
            USER, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), PASSWORD.encode()
        )
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.alter_user_scram_credentials([user])[USER].result(15)
        yield broker, *[f"127.0.0.1:{port}" for port in ports]
    finally:
        broker.stop()


SASL = "sasl_over_ssl false\n  username {user}\n  password {password}"
PASSWORD_WRONG = "check `username`, `password` and the SASL mechanism"
WAYS = {
    "PLAIN": (1, SASL, None),
    "PLAIN, wrong password": (1, SASL.replace("{password}", "wrong"), PASSWORD_WRONG),
    "SCRAM": (1, SASL + "\n  scram_mechanism sha256", None),
    "SCRAM, wrong password": (
        1,
        SASL.replace("{password}", "wrong") + "\n  scram_mechanism sha256",
        PASSWORD_WRONG,
    ),
    "no user": (1, "", "check"),
    "TLS": (2, "ssl_ca_cert {certificates}/ca.pem", None),
    "TLS, wrong authority": (
        2,
        "ssl_ca_cert {certificates}/stranger.pem",
        "check `ssl_ca_cert`",
    ),
    "no TLS": (2, "", "check"),
}


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("way", WAYS)
def test_a_broker_that_knows_its_clients(secured, certificates, make_road, way, delivery):
    address, source, reason = WAYS[way]
    one = make_road(secured[0])
    source = source.format(user=USER, password=PASSWORD, certificates=certificates)
    replica = one.replica(source=f"delivery {delivery}\n  {source}", brokers=secured[address])
    one.produce(range(100))
    replica.start()
    if reason is None:
        one.expect_once(100)
        assert complaints(replica) == []
    else:
        wait_for(lambda: any(reason in line for line in complaints(replica)))
        time.sleep(5)
        assert len(complaints(replica)) < 8, "\n".join(complaints(replica))
        assert one.committed() == 0
    assert replica.stop(30) == 0
