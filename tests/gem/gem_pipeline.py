"""What the tests of the gem run: an installation of Fluentd, and a pipeline through the sidecar."""

import io
import os
import re
import sys
import threading
import time

import msgpack

from bridge.errors import DeliveryError
from bridge.events import EventTime
from bridge.forward import Client
from bridge.forward.codec import pack_entries
from bridge.local.fluentd import configuration

GEM = configuration().parent / "fluent-plugin-bridge"
# Plugins run from the source, without being installed: Fluentd looks for them where Ruby does.
FROM_SOURCE = {"RUBYLIB": str(GEM / "lib"), "BRIDGE_PYTHON": sys.executable}


FILTERS = """
import bridge

@bridge.filter("ad.**")
def check(record: dict) -> dict:
    if record["id"] % 100 == 13:
        raise bridge.Reject("thirteen")
    record["filtered"] = True
    return record
"""

FORWARD_IN = """
<source>
  @type forward
  bind 127.0.0.1
  port "#{ENV['RETURN_PORT']}"
</source>
"""

FORWARD_OUT = """
  <match {pattern}>
    @type forward
    heartbeat_type none
    require_ack_response true
    <server>
      host 127.0.0.1
      port "#{{ENV['SINK_PORT']}}"
    </server>
    <buffer tag>
      @type memory
      flush_mode interval
      flush_interval 0.1
      flush_thread_interval 0.05
      retry_wait 0.2
      retry_max_interval 1
      retry_forever true
    </buffer>
  </match>
"""


class Installation:
    """A Fluentd and the Ruby that it runs on."""

    def __init__(self, folder):
        self._folder = folder

    def program(self, name):
        return str(self._folder / name)

    def environment(self, **more):
        path = f"{self._folder}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, **{name: str(value) for name, value in more.items()}}


class Pipeline:
    """A real Fluentd between a sender, which sends again what is not acknowledged, and a sink.

    Attributes:
        chunks: the ids of each chunk that the sink got, with its tag, in order.
    """

    def __init__(self, fluentd):
        self.fluentd = fluentd
        self.chunks = []
        self.unfiltered = []

    def take(self, chunk):
        records = [record for _, record in decode(chunk)]
        if chunk.tag.startswith("error."):
            self.chunks.append((chunk.tag, [letter["record"]["id"] for letter in records]))
        else:
            self.unfiltered += [record for record in records if not record.get("filtered")]
            self.chunks.append((chunk.tag, [record["id"] for record in records]))

    def ids(self, tag):
        return [number for found, ids in self.chunks if found == tag for number in ids]

    def send(self, batches, tag="ad.click"):
        for ids in batches:
            body = pack_entries(
                (EventTime(1_700_000_000, number), {"id": number}) for number in ids
            )
            while True:
                try:
                    with Client("127.0.0.1", self.fluentd.return_port) as client:
                        client.send_packed(tag, body, len(ids))
                        client.flush()
                    break
                except (DeliveryError, OSError):
                    time.sleep(0.2)

    def sending(self, batches):
        thread = threading.Thread(target=self.send, args=(batches,), daemon=True)
        thread.start()
        return thread

    def wait(self, done, timeout=60):
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline, self.fluentd.output()
            time.sleep(0.1)

    def complaints(self):
        """What Fluentd's log has of the level warn and above, without the times."""
        lines = self.fluentd.output().splitlines()
        return [
            line.partition("]: #0 ")[2]
            for line in lines
            if re.search(r"\[(warn|error|fatal)\]: ", line)
        ]


def decode(chunk):
    return msgpack.Unpacker(io.BytesIO(bytes(chunk.entries)), raw=False, strict_map_key=False)
