"""The output in a real Fluentd whose sidecar comes and goes."""

import re

from gem_pipeline import FORWARD_IN, FORWARD_OUT
from test_filter_plugin import batches, no_stack_traces

OUTPUT = """
<match ad.**>
  @type bridge
  @label @FILTERED
  address "#{ENV['SIDECAR']}"
  timeout 10
  <buffer tag>
    @type file
    path "#{ENV['BUFFER_DIR']}"
    chunk_limit_records 50
    flush_mode interval
    flush_interval 0.1
    flush_thread_count 4
    flush_thread_interval 0.05
    flush_thread_burst_interval 0.01
    retry_wait 0.2
    retry_max_interval 1
  </buffer>
</match>
"""
CONF = FORWARD_IN + OUTPUT + "<label @FILTERED>" + FORWARD_OUT.format(pattern="**") + "</label>"


def check(flow, count):
    good = {number for number in range(count) if number % 100 != 13}
    flow.wait(lambda: set(flow.ids("ad.click")) >= good)
    flow.wait(lambda: len(set(flow.ids("error.ad.click"))) == count // 100)
    assert flow.unfiltered == []
    assert set(flow.ids("ad.click")) == good
    return len(flow.ids("ad.click")) - len(good)


def test_several_flush_threads(sidecar, pipeline):
    one = sidecar(workers__count=2)
    one.start()
    flow = pipeline(CONF, one.address)
    flow.send(batches(10_000))
    assert check(flow, 10_000) == 0
    assert flow.complaints() == []


def test_the_sidecar_is_killed_and_comes_back(sidecar, pipeline, figures):
    one = sidecar()
    one.start()
    flow = pipeline(CONF, one.address)
    sender = flow.sending(batches(20_000))
    for goal in (2_000, 8_000):
        flow.wait(lambda goal=goal: len(flow.ids("ad.click")) > goal)
        one.kill()
        flow.wait(lambda: any("is not there" in line for line in flow.complaints()))
        one.start()
    sender.join(60)
    figures(f"two kills of the sidecar under an output: {check(flow, 20_000)} events twice")
    said = r"^(failed to flush the buffer|retry succeeded)"
    assert [line for line in flow.complaints() if not re.search(said, line)] == []
    no_stack_traces(flow)


def test_what_is_buffered_survives_a_kill_of_fluentd(sidecar, pipeline):
    one = sidecar()
    flow = pipeline(CONF, one.address)
    flow.send(batches(2_000))
    flow.fluentd.kill()
    one.start()
    flow.fluentd.start()
    check(flow, 2_000)
