"""Where the service listens: sockets, ports, certificates, and peers that are no gRPC clients."""

import os
import random
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_rig import OPTIONS, Rig, events, large

from bridge.local.processes import ProgramError
from bridge.rpc.v1 import sidecar_pb2 as pb

PASS = """
@bridge.filter("**")
def keep(record):
    return record
"""
ONE = events({"id": 1})


def test_the_socket_is_for_all_users_who_may_enter_its_folder(rig, tmp_path):
    started = rig(PASS, rpc__socket=tmp_path / "sock")
    assert stat.S_IMODE((tmp_path / "sock").stat().st_mode) == 0o666
    assert started.process(b"ad", ONE).counts == {b"ad": 1}
    started.sidecar.stop()
    assert not (tmp_path / "sock").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_another_user_connects(rig):
    with tempfile.TemporaryDirectory() as folder:  # pytest's are for its user alone
        Path(folder).chmod(0o755)
        started = rig(PASS, rpc__socket=f"{folder}/sock")
        code = (
            "import os, socket, sys; os.setgid(65534); os.setuid(65534);"
            " socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
        )
        subprocess.run([sys.executable, "-c", code, f"{folder}/sock"], check=True)
        assert started.process(b"ad", ONE).counts == {b"ad": 1}
        assert started.sidecar.stop() == 0


def test_the_socket_of_a_killed_process_is_taken_over(make_sidecar, tmp_path):
    sidecar = make_sidecar(PASS)
    sidecar.start()
    sidecar.kill()
    assert (tmp_path / "s0").is_socket()
    sidecar.start()
    rig = Rig(sidecar, sidecar.target)
    assert rig.process(b"ad", ONE).counts == {b"ad": 1}
    rig.close()


def refusal(sidecar):
    """Return the reason that it gives in its log for not starting."""
    with pytest.raises(ProgramError, match="ended with status 2"):
        sidecar.start()
    (line,) = [line for line in sidecar.log() if line["event"] == "cannot start"]
    assert "Traceback" not in str(sidecar.log())
    return line["reason"]


def test_the_socket_of_a_living_process_is_left_alone(rig, make_sidecar, tmp_path):
    started = rig(PASS, rpc__socket=tmp_path / "sock")
    reason = refusal(make_sidecar(PASS, rpc__socket=tmp_path / "sock"))
    assert reason == (
        f"rpc.socket: another process listens on {tmp_path}/sock: end it, or name another file"
    )
    assert started.process(b"ad", ONE).counts == {b"ad": 1}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file", "is there and is no socket: remove it, or name another file"),
        ("file/s", "Not a directory"),
        ("none/s", "name a file in a folder that exists and that this user may write to"),
    ],
)
def test_a_path_that_cannot_be_used(make_sidecar, tmp_path, name, reason):
    (tmp_path / "file").touch()
    said = refusal(make_sidecar(PASS, rpc__socket=tmp_path / name))
    assert said.startswith("rpc.socket: ")
    assert f"{tmp_path}/{name}" in said
    assert reason in said
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("name", ["100%41", "a b?c#d", "ü"])
def test_a_path_is_taken_as_it_is_written(rig, tmp_path, name):
    started = rig(PASS, rpc__socket=tmp_path / name)
    assert (tmp_path / name).is_socket()
    (address,) = started.log("ready")[0]["rpc"]
    other = Rig(started.sidecar, address)
    assert other.process(b"ad", ONE).counts == {b"ad": 1}
    other.close()


def test_a_port_that_is_taken(make_sidecar):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        reason = refusal(make_sidecar(PASS, rpc__port=port))
    assert reason == (
        f"rpc.host and rpc.port: cannot listen on 127.0.0.1:{port}: choose another port, or end the"
        " program that has this one"
    )


def test_certificates_that_cannot_be_used(make_sidecar, certificates, tmp_path):
    (tmp_path / "no.pem").write_text("no certificate")
    reason = refusal(
        make_sidecar(
            PASS,
            rpc__port=0,
            rpc__tls_cert_file=tmp_path / "no.pem",
            rpc__tls_key_file=certificates / "server.pem",
        )
    )
    assert f"rpc.tls_cert_file ({tmp_path}/no.pem)" in reason
    assert "give certificates and the key that belongs to them in PEM" in reason


def credentials(certificates, name=None):
    pem = name and (certificates / f"{name}.pem").read_bytes()
    return grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes(), pem, pem)


@pytest.mark.parametrize(
    ("client_ca", "client", "works"),
    [
        (False, None, True),
        (True, "client", True),
        (True, None, False),
        (True, "stranger", False),
        (False, "plaintext", False),
    ],
)
def test_tls(make_sidecar, certificates, free_port, client_ca, client, works):
    settings = {"rpc__tls_client_ca_file": certificates / "ca.pem"} if client_ca else {}
    port = free_port()
    sidecar = make_sidecar(
        PASS,
        rpc__host="0.0.0.0",
        rpc__port=port,
        rpc__tls_cert_file=certificates / "server.pem",
        rpc__tls_key_file=certificates / "server.pem",
        **settings,
    )
    sidecar.start()
    plain = client == "plaintext"
    rig = Rig(sidecar, f"127.0.0.1:{port}", None if plain else credentials(certificates, client))
    if works:
        assert rig.process(b"ad", large()).streams == {b"ad": large()}
    else:
        assert rig.fails(b"ad", ONE, timeout=10).code() is grpc.StatusCode.UNAVAILABLE
    rig.close()


def test_socket_port_and_forward_together(rig, tmp_path, free_port):
    port = free_port()
    started = rig(PASS, listen__enabled="true", rpc__socket=tmp_path / "both", rpc__port=port)
    (ready,) = started.log("ready")
    assert ready["rpc"] == [f"unix:{tmp_path}/both", f"127.0.0.1:{port}"]
    assert ready["listen"] == f"127.0.0.1:{started.sidecar.port}"
    with grpc.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        over_tcp = channel.unary_unary(
            "/bridge.rpc.v1.Sidecar/Process",
            request_serializer=pb.ProcessRequest.SerializeToString,
            response_deserializer=pb.ProcessResponse.FromString,
        )
        answer = over_tcp(started.request(b"ad", ONE))
    assert answer == started.process(b"ad", ONE).response


def test_peers_that_speak_no_grpc_disturb_nobody(rig, tmp_path):
    started = rig(PASS, rpc__socket=tmp_path / "sock")
    rng = random.Random(3)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    stop = threading.Event()
    attempts = []

    def disturb():
        while not stop.is_set():
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(5)
                peer.connect(str(tmp_path / "sock"))
                noise = rng.randbytes(rng.randrange(1, 4000))
                try:
                    peer.sendall(rng.choice([b"", preface]) + noise)
                    if rng.random() < 0.5:
                        peer.shutdown(socket.SHUT_WR)
                        peer.recv(1 << 16)
                except OSError:
                    pass
            attempts.append(1)

    threads = [threading.Thread(target=disturb) for _ in range(4)]
    silent = [socket.socket(socket.AF_UNIX) for _ in range(50)]
    for peer in silent:  # who connects and says nothing
        peer.connect(str(tmp_path / "sock"))
    for thread in threads:
        thread.start()
    entries = large()
    for _ in range(60):
        assert started.process(b"ad", entries).streams == {b"ad": entries}
    stop.set()
    for thread in (*threads, *silent):
        getattr(thread, "join", getattr(thread, "close", None))()
    assert len(attempts) > 100
    assert started.sidecar.stop() == 0
    lines = started.sidecar.log()
    assert {line["event"] for line in lines} <= {
        "ready", "draining", "drained, everything received was answered"
    }  # fmt: skip


def test_memory_does_not_grow_with_calls(rig, figures):
    started = rig(PASS)
    entries = large() * 3  # 1 MB
    transport = psutil.Process(started.sidecar.pid)

    def resident():
        return transport.memory_info().rss

    def call(times):
        for _ in range(times):
            assert len(started.process(b"ad", entries).response.streams) == 2

    call(100)
    before = resident()
    call(1000)
    grown = resident() - before
    figures(f"1,000 gRPC calls of {len(entries) >> 10} KiB: grown by {grown / (1 << 20):.1f} MiB")
    assert grown < 16 << 20
