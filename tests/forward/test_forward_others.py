"""Against programs that nobody here wrote: fluent-logger, and Fluentd in both roles."""

import time

import pytest
from fluent.sender import EventTime as LoggerTime
from fluent.sender import FluentSender

from bridge.errors import AuthenticationError
from bridge.events import EventTime
from bridge.forward import Client, ServerAuth
from bridge.local.fluentd import Fluentd

KEYS = {"shared_key": "k€y", "username": "ann", "password": "sécret", "hostname": "client"}


@pytest.mark.parametrize("nanoseconds", [False, True])
def test_fluent_logger(serve, nanoseconds):
    server = serve()
    logger = FluentSender(
        "app", host="127.0.0.1", port=server.port, nanosecond_precision=nanoseconds
    )
    records = [{"n": n, "text": "é" * n, "more": [1, None, {"x": 2.5}]} for n in range(500)]
    before = EventTime.now()
    for record in records:
        assert logger.emit("event", record), logger.last_error
    logger.emit_with_time("event", LoggerTime.from_unix_nano(1_000_000_007), {"last": True})
    logger.close()
    server.wait(lambda server: len(server.chunks) == 501)
    assert {(chunk.tag, chunk.count, chunk.ack) for chunk in server.chunks} == {
        ("app.event", 1, None)
    }
    times, found = zip(*server.events, strict=True)
    assert list(found) == [*records, {"last": True}]
    assert times[-1] == EventTime(1, 7)
    if nanoseconds:
        assert before <= times[0] <= times[-2] <= EventTime.now()
    else:
        assert before.seconds <= times[0] <= times[-2] <= EventTime.now().seconds


CONFIGURATION = """
<source>
  @type forward
  bind 127.0.0.1
  port "#{{ENV['RETURN_PORT']}}"
  <security>
    self_hostname fluentd
    shared_key k€y
    user_auth true
    <user>
      username ann
      password sécret
    </user>
  </security>
</source>
{outputs}
"""

OUTPUT = """
<match {tag}>
  @type forward
  require_ack_response true
  keepalive {keepalive}
  compress {compress}
  heartbeat_type none
  <server>
    host 127.0.0.1
    port {port}
    username bob
    password pa$$word
  </server>
  <security>
    self_hostname fluentd
    shared_key other
  </security>
  <buffer tag>
    @type memory
    compress {compress}
    flush_interval 0.2
    flush_thread_interval 0.05
  </buffer>
</match>
"""


@pytest.fixture(scope="module")
def through_fluentd(start_server, tmp_path_factory):
    """Start a Fluentd that hands on what it gets; return its port and the server that gets it."""
    if why := Fluentd.missing():  # the containers' Fluentd has no zstd
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("fluentd")
    server = start_server(
        auth=ServerAuth(shared_key="other", hostname="bridge", users={"bob": "pa$$word"})
    )
    outputs = "".join(
        OUTPUT.format(tag=f"{method}.**", compress=method, port=server.port, keepalive=keepalive)
        for method, keepalive in (("text", "true"), ("gzip", "false"), ("zstd", "true"))
    )
    configuration = folder / "fluentd.conf"
    configuration.write_text(CONFIGURATION.format(outputs=outputs), encoding="utf-8")
    fluentd = Fluentd(folder, {}, conf=configuration)
    try:
        fluentd.start()
        yield fluentd.return_port, server
    finally:
        print(fluentd.output())
        fluentd.stop()


@pytest.mark.fluentd
def test_fluentd_in_both_roles(through_fluentd):
    """Its in_forward takes what the client sends, and the receiver takes what its out_forward sends."""
    port, server = through_fluentd
    sent = {}
    for method, compress in (("text", "zstd"), ("gzip", None), ("zstd", "gzip")):
        tag = f"{method}.x"
        with Client("127.0.0.1", port, window=4, compress=compress, **KEYS) as client:
            for n in range(20):
                events = [(EventTime(n + 1, i), {"n": n, "i": i, "t": "é" * i}) for i in range(50)]
                client.send(tag, events)
                sent.setdefault(tag, []).extend(events)
    server.wait(lambda server: len(server.events) >= 3000)
    time.sleep(0.5)  # what is sent twice would come now
    assert server.errors == []
    found = {}
    for chunk in server.chunks:
        events = server.events_of(chunk)
        assert chunk.count == len(events)
        assert chunk.ack.endswith(b"\n")
        assert chunk.compressed == {"text.x": None}.get(chunk.tag, chunk.tag[:4])
        found.setdefault(chunk.tag, []).extend(events)
    assert found == sent
    # Several members in a chunk: Fluentd makes one an append.
    assert any(chunk.count > 50 for chunk in server.chunks if chunk.compressed == "gzip")
    assert any(chunk.count > 50 for chunk in server.chunks if chunk.compressed == "zstd")


@pytest.mark.fluentd
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shared_key": "wrong"}, "refused: shared_key mismatch"),
        ({"username": "eve"}, "refused: username/password mismatch"),
        ({"password": "wrong"}, "refused: username/password mismatch"),
    ],
)
def test_fluentd_refuses(through_fluentd, changes, text):
    port, _ = through_fluentd
    with pytest.raises(AuthenticationError, match=text):
        Client("127.0.0.1", port, **KEYS | changes).connect()
