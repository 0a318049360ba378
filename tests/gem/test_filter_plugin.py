"""The filter in a real Fluentd whose sidecar comes and goes."""

import re

import pytest
from gem_pipeline import FORWARD_IN, FORWARD_OUT

FILTER = """
<filter ad.**>
  @type bridge
  address "#{ENV['SIDECAR']}"
  timeout "#{ENV['TIMEOUT'] || 60}"
</filter>
"""
CONF = FORWARD_IN + FILTER + FORWARD_OUT.format(pattern="{ad,error}.**")
WITH_ERROR_LABEL = CONF + "<label @ERROR>" + FORWARD_OUT.format(pattern="**") + "</label>"
STEP = re.compile(
    r"sidecar at unix:\S+ (is not there: start it, or check `address`|cannot take it now)"
    r" \(tag ad.click, \d+ bytes\).*: trying again in \S+ s$"
)


def batches(count, size=50):
    return [range(begin, begin + size) for begin in range(0, count, size)]


def check(flow, count):
    """Everything came, in order, and nothing unfiltered."""
    good = [number for number in range(count) if number % 100 != 13]
    flow.wait(lambda: set(flow.ids("ad.click")) >= set(good))
    flow.wait(lambda: len(set(flow.ids("error.ad.click"))) == count // 100)
    assert flow.unfiltered == []
    ids = flow.ids("ad.click")
    assert list(dict.fromkeys(ids)) == good
    assert set(flow.ids("error.ad.click")) == set(range(13, count, 100))
    return len(ids) - len(good)


def no_stack_traces(flow):
    assert not re.search(r"\.rb:\d+:in ", flow.fluentd.output())


def test_every_event_goes_through_once(sidecar, pipeline):
    one = sidecar()
    one.start()
    flow = pipeline(CONF, one.address)
    flow.send(batches(5_000))
    assert check(flow, 5_000) == 0
    assert flow.complaints() == []


def test_the_sidecar_is_killed_and_comes_back(sidecar, pipeline, figures):
    one = sidecar()
    one.start()
    flow = pipeline(CONF, one.address)
    sender = flow.sending(batches(20_000))
    for goal in (2_000, 8_000, 14_000):
        flow.wait(lambda goal=goal: len(flow.ids("ad.click")) > goal)
        one.kill()
        one.start()
    sender.join(90)
    figures(f"three kills of the sidecar under a filter: {check(flow, 20_000)} events twice")
    no_stack_traces(flow)


def test_the_sidecar_is_away_for_half_a_minute(sidecar, pipeline):
    one = sidecar()
    flow = pipeline(CONF, one.address)
    sender = flow.sending(batches(500))
    # 0.5 + 1 + 2 + 4 + 5 + 5 + 5 + 5 = 27.5
    flow.wait(lambda: len(flow.complaints()) == 9)
    assert flow.chunks == []
    one.start()
    sender.join(60)
    assert check(flow, 500) == 0
    assert [line for line in flow.complaints() if not STEP.search(line)] == []
    waits = [re.search(r"in (\S+) s$", line)[1] for line in flow.complaints()]
    assert waits[:9] == ["0.5", "1", "2", "4", "5", "5", "5", "5", "5"]
    assert "the sidecar answers again" in flow.fluentd.output()


def test_away_for_longer_than_the_filter_waits(sidecar, pipeline):
    one = sidecar()
    flow = pipeline(CONF, one.address, TIMEOUT="2")
    sender = flow.sending(batches(500))
    flow.wait(
        lambda: sum("unexpected error on reading data" in line for line in flow.complaints()) >= 3
    )
    one.start()
    sender.join(60)
    check(flow, 500)
    others = [line for line in flow.complaints() if not STEP.search(line)]
    # What Fluentd says of an error that a filter raises, and in_forward of one that comes out of an emit.
    assert all(
        line.startswith(("emit transaction failed", "unexpected error on reading data"))
        for line in others
    ), others
    no_stack_traces(flow)


def test_an_error_label_gets_nothing_that_was_not_filtered(sidecar, pipeline):
    one = sidecar()
    flow = pipeline(WITH_ERROR_LABEL, one.address, TIMEOUT="1")
    sender = flow.sending(batches(500))
    flow.wait(
        lambda: len(flow.complaints()) == 4
    )  # at 0, 0.5, 1.5 and 3.5 s: well after the timeout
    one.start()
    sender.join(60)
    assert check(flow, 500) == 0


def test_stopping_does_not_wait_for_the_sidecar(sidecar, pipeline):
    flow = pipeline(CONF, sidecar().address)
    flow.sending(batches(50))
    flow.wait(flow.complaints)
    assert flow.fluentd.stop(grace=30) == 0
    assert flow.chunks == []


def test_a_result_that_nothing_takes_is_an_error_that_says_so(sidecar, pipeline):
    one = sidecar()
    one.start()
    flow = pipeline(
        FORWARD_IN + FILTER + FORWARD_OUT.format(pattern="ad.**"), one.address, TIMEOUT="1"
    )
    flow.sending([range(10), range(10, 20)])
    said = "the sidecar gives 1 events the tag error.ad.click, and no <match> of the pipeline that this filter stands in takes them"
    flow.wait(
        lambda: any(said in line and "add a <match error.**>" in line for line in flow.complaints())
    )
    flow.wait(lambda: flow.ids("ad.click") == list(range(10)))
    no_stack_traces(flow)


def test_a_grpc_server_that_is_no_sidecar(pipeline, tmp_path):
    grpc = pytest.importorskip("grpc")
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(1))
    server.add_insecure_port(f"unix:{tmp_path}/other.sock")
    server.start()
    flow = pipeline(CONF, f"unix:{tmp_path}/other.sock", TIMEOUT="1")
    flow.sending([range(10)])
    said = r"does not know this plugin's contract, bridge.rpc.v1 .* update fluent-bridge to the version of this plugin, 0\.\d"
    flow.wait(lambda: any(re.search(said, line) for line in flow.complaints()))
    server.stop(None)
    assert flow.chunks == []
    no_stack_traces(flow)


TLS = """
<filter ad.**>
  @type bridge
  address "#{ENV['SIDECAR']}"
  timeout 1
  tls_cert_path "#{ENV['CERTIFICATES']}/ca.pem"
  tls_client_cert_path "#{ENV['CERTIFICATES']}/#{ENV['CLIENT']}.pem"
  tls_client_private_key_path "#{ENV['CERTIFICATES']}/#{ENV['CLIENT']}.pem"
</filter>
"""


@pytest.mark.parametrize("client", ["client", "stranger"])
def test_over_tcp_with_certificates_on_both_sides(
    sidecar, pipeline, certificates, free_port, client
):
    port = free_port()
    one = sidecar(
        rpc__host="127.0.0.1",
        rpc__port=port,
        rpc__tls_cert_file=certificates / "server.pem",
        rpc__tls_key_file=certificates / "server.pem",
        rpc__tls_client_ca_file=certificates / "ca.pem",
    )
    one.start()
    settings = {"CERTIFICATES": str(certificates), "CLIENT": client}
    flow = pipeline(CONF.replace(FILTER, TLS), f"127.0.0.1:{port}", **settings)
    flow.sending([range(10)])
    if client == "client":
        flow.wait(lambda: flow.ids("ad.click") == list(range(10)))
        assert flow.unfiltered == []
    else:
        flow.wait(lambda: any("emit transaction failed" in line for line in flow.complaints()))
        assert flow.chunks == []
        no_stack_traces(flow)
