"""What the README of mask-pii says keeps dead letters masked, in a real Fluentd."""

import re
import shutil
import sys
import textwrap
import threading

from test_examples import EXAMPLES

from bridge.forward import Client
from bridge.forward.codec import decode_entries, pack_entries
from bridge.local.fluentd import configuration
from bridge.local.sidecar import Sidecar
from bridge.local.sink import Sink

README = EXAMPLES / "mask-pii" / "README.md"
CONF = """
<source>
  @type forward
  bind 127.0.0.1
  port "#{{ENV['RETURN_PORT']}}"
</source>
{filters}
<match {{app,error,unmasked}}.**>
  @type forward
  heartbeat_type none
  <server>
    host 127.0.0.1
    port "#{{ENV['SINK_PORT']}}"
  </server>
  <buffer tag>
    @type memory
    flush_mode immediate
  </buffer>
</match>
"""
BEHIND = """
import bridge

@bridge.filter("app.**")
def fails(record):
    raise ValueError("not for ada@example.com")
"""


def test_a_dead_letter_leaves_masked(tmp_path, fluentd, monkeypatch):
    monkeypatch.setenv("MASK_KEY", "0123456789abcdef")
    shutil.copytree(EXAMPLES / "mask-pii" / "filters", tmp_path / "filters")
    (tmp_path / "filters" / "raises.py").write_text(BEHIND)
    socket = tmp_path / "sidecar.sock"
    settings = {"rpc.socket": socket, "listen.enabled": "false", "workers.count": 1}
    sidecar = Sidecar(tmp_path / "filters", tmp_path / "sidecar", settings)
    (conf,) = re.findall(
        r"^ +<filter app.*</filter>$", README.read_text(), re.DOTALL | re.MULTILINE
    )
    conf = textwrap.dedent(conf).replace("/run/fluent-bridge/sidecar.sock", str(socket))
    file = tmp_path / "fluent.conf"
    file.write_text(CONF.format(filters=conf))
    chunks, came = [], threading.Event()

    def take(chunk):
        chunks.append(chunk)
        came.set()

    gem = configuration().parent / "fluent-plugin-bridge" / "lib"
    try:
        sidecar.start()
        with Sink(take) as sink:
            environment = {"RUBYLIB": str(gem), "BRIDGE_PYTHON": sys.executable}
            one = fluentd(
                tmp_path / "fluentd", {**environment, "SINK_PORT": str(sink.port)}, conf=file
            )
            one.start()
            record = {"email": "ada@example.com", "ip": "203.0.113.77"}
            with Client("127.0.0.1", one.return_port) as client:
                client.send_packed("app.login", pack_entries([(1, record)]), 1)
                client.flush()
            assert came.wait(60), one.output()
    finally:
        sidecar.kill()
    (chunk,) = chunks
    ((_, letter),) = decode_entries(bytes(chunk.entries))
    assert chunk.tag == "error.app.login"
    assert letter["error"]["class"] == "ValueError"
    assert letter["record"]["ip"] == "203.0.113.0"
    assert b"ada@" not in bytes(chunk.entries)
