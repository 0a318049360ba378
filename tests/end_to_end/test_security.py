"""A real Fluentd on both sides of the sidecar, with a shared key, users and mutual TLS."""

import msgpack
import pytest

from bridge.forward import Client, tls_context
from bridge.local.sidecar import Sidecar
from bridge.local.topics import TopicError

EVENTS = 2_000

CONF = """
<source>
  @type forward
  @label @TO_SIDECAR
  bind 127.0.0.1
  port {source_port}
</source>
<label @TO_SIDECAR>
  <match **>
    @type forward
    require_ack_response true
    heartbeat_type none
    compress {compress}
    transport tls
    tls_cert_path {certificates}/ca.pem
    # The openssl gem 4.0 of this Fluentd fails on certificates for addresses (ssl.rb:264).
    tls_verify_hostname false
    tls_client_cert_path {certificates}/client.pem
    tls_client_private_key_path {certificates}/client.pem
    <security>
      self_hostname fluentd
      shared_key up
    </security>
    <server>
      host 127.0.0.1
      port {sidecar_port}
      username alice
      password secret
    </server>
    <buffer tag>
      flush_mode immediate
    </buffer>
  </match>
</label>
<source>
  @type forward
  @label @FILTERED
  bind 127.0.0.1
  port {return_port}
  <transport tls>
    ca_path {certificates}/ca.pem
    cert_path {certificates}/server.pem
    private_key_path {certificates}/server.pem
    client_cert_auth true
  </transport>
  <security>
    self_hostname fluentd
    shared_key down
    user_auth true
    <user>
      username bob
      password other
    </user>
  </security>
</source>
<label @FILTERED>
  <match **>
    @type file
    path {out}
    append true
    <format>
      @type msgpack
    </format>
    <buffer []>
      flush_mode immediate
    </buffer>
  </match>
</label>
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_both_hops_with_keys_users_and_mutual_tls(
    fluentd, free_port, certificates, tmp_path, compress
):
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "f.py").write_text(
        "import bridge\n\n@bridge.filter('ad.**')\ndef mark(record: dict) -> dict:\n"
        "    record['marked'] = True\n    return record\n"
    )
    source_port, return_port = free_port(), free_port()
    secure = {
        "shared_key": "down",
        "username": "bob",
        "password": "other",
        "hostname": "sidecar",
        "tls": "true",
        "tls_ca_file": certificates / "ca.pem",
        "tls_cert_file": certificates / "client.pem",
        "tls_key_file": certificates / "client.pem",
    }
    sidecar = Sidecar(
        tmp_path / "filters",
        tmp_path,
        {
            "listen.shared_key": "up",
            "listen.users": '{"alice": "secret"}',
            "listen.hostname": "sidecar",
            "listen.tls_cert_file": certificates / "server.pem",
            "listen.tls_key_file": certificates / "server.pem",
            "listen.tls_client_ca_file": certificates / "ca.pem",
            "downstream.port": return_port,
            **{f"downstream.{name}": value for name, value in secure.items()},
        },
    )
    conf = tmp_path / "secure.conf"
    conf.write_text(
        CONF.format(
            source_port=source_port,
            sidecar_port=sidecar.port,
            return_port=return_port,
            certificates=certificates,
            compress=compress,
            out=tmp_path / "out",
        )
    )
    process = fluentd(tmp_path / "fluentd", {"RETURN_PORT": str(return_port)}, conf=conf)
    sidecar.start()
    process.start()
    try:
        with Client("127.0.0.1", source_port) as client:
            for start in range(0, EVENTS, 500):
                client.send("ad.click", [{"id": i} for i in range(start, start + 500)])
        ids = _ids(tmp_path, sidecar)
        assert sorted(ids) == list(range(EVENTS))
        stranger = tls_context(
            ca_file=certificates / "ca.pem",
            cert_file=certificates / "stranger.pem",
            key_file=certificates / "stranger.pem",
        )
        with (
            pytest.raises(Exception, match=r"(?i)certificate|unknown ca|closed|reset"),
            Client(
                "127.0.0.1",
                sidecar.port,
                tls=stranger,
                shared_key="up",
                username="alice",
                password="secret",
                hostname="me",
                timeout=5,
            ) as client,
        ):
            client.send("ad.click", [{"id": -1}])
    finally:
        process.stop()
        assert sidecar.stop() == 0


def _ids(folder, sidecar, timeout=60):
    import time

    ends = time.monotonic() + timeout
    while True:
        ids = []
        for file in folder.glob("out*"):
            for part in [file] if file.is_file() else file.iterdir():
                if part.suffix == ".meta":
                    continue
                unpacker = msgpack.Unpacker()
                unpacker.feed(part.read_bytes())
                ids += [record["id"] for record in unpacker if record["marked"]]
        if len(ids) >= EVENTS:
            return ids
        if time.monotonic() > ends:
            raise TopicError(f"only {len(ids)} events came out: {sidecar.log()[-5:]}")
        time.sleep(0.2)
