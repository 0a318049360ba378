"""A real Kafka and a real Fluentd for the tests that ask for them.

Programs on the PATH are used; else containers, where an engine answers; else the test is skipped
with the reason. With BRIDGE_TEST_REQUIRE=fluentd,kafka such a skip is a failure.
"""

import datetime as dt
import ipaddress
import os
import pty
import shutil
import signal
import subprocess
import sys

import images_rig
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes_node import Node

from bridge.local.fluentd import Fluentd
from bridge.local.kafka import KafkaBroker
from bridge.local.processes import free_port as find_free_port

REQUIRED = {name.strip() for name in os.environ.get("BRIDGE_TEST_REQUIRE", "").split(",")} - {""}
PROGRAMS = (
    "fluentd",
    "fluentd-oldest",
    "kafka",
    "kubectl",
    "kubernetes",
    "prometheus",
    "promtool",
)


def pytest_configure():
    # A shell has its background jobs ignore it, and so would all programs that tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if unknown := REQUIRED - set(PROGRAMS):
        pytest.exit(f"BRIDGE_TEST_REQUIRE names {', '.join(sorted(unknown))}; known: {PROGRAMS}", 4)


def pytest_collection_modifyitems(items):
    for item in items:
        for program in PROGRAMS:
            if program in getattr(item, "fixturenames", ()):
                item.add_marker(program)
        if "node" in getattr(item, "fixturenames", ()):
            item.add_marker("kubernetes")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    marks = {mark.name for mark in item.iter_markers()}
    # What needs a node has a command of its own, whatever else it needs.
    needed = set() if "kubernetes" in marks - REQUIRED else marks & REQUIRED
    if report.skipped and needed and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}\nBRIDGE_TEST_REQUIRE asks for {', '.join(sorted(needed))}"
    return report


def pytest_terminal_summary(terminalreporter):
    """Show what tests measured, passed or failed: duplicates, memory, rates."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [
        text
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, text in report.user_properties
        if name == "figures"
    ]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def figures(record_property):
    """Return a function that has a line shown at the end of the run."""
    return lambda text: record_property("figures", text)


def containers(why_no_program):
    """Return the module of containers, or skip."""
    try:
        import containers
    except ImportError as error:
        pytest.skip(f"{why_no_program}, and {error}")
    if why := containers.missing():
        pytest.skip(f"{why_no_program}, and {why}")
    return containers


@pytest.fixture(scope="session")
def kubectl():
    """Return a function that runs kubectl, and returns what it printed; none needs a cluster unless it asks for one."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")

    def run(*arguments, stdin=None, check=True):
        done = subprocess.run(
            ["kubectl", *map(str, arguments)], input=stdin, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, f"kubectl {arguments}: {done.stdout}{done.stderr}"
        return done.stdout if check else done

    return run


@pytest.fixture(scope="session")
def node(kubectl):
    """A real Kubernetes node, one that runs already or one of this session's own; `make test-k8s` asks for it."""
    if "kubernetes" not in REQUIRED:
        pytest.skip("make test-k8s runs what needs a Kubernetes node")
    own = not Node.running()
    if own:
        Node.start()
    yield Node
    if own:
        Node.stop()


@pytest.fixture(scope="session")
def images(node):
    """The project's images, built and on the node: {name: tag}."""
    if why := images_rig.missing():
        pytest.skip(why)
    return images_rig.load(node)


@pytest.fixture
def on_terminal():
    """Return a function that runs a command of fluent-bridge on a terminal, and returns what that shows."""

    def run(*arguments, stderr=None):
        ours, theirs = pty.openpty()
        try:
            command = [sys.executable, "-m", "bridge", *arguments]
            with subprocess.Popen(command, stdout=theirs, stderr=stderr) as process:
                os.close(theirs)
                text = b""
                while True:
                    try:
                        text += os.read(ours, 65536)
                    except OSError:  # the other side is closed
                        break
        finally:
            os.close(ours)
        assert process.returncode == 0
        return text.decode()

    return run


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """A real Kafka, started; it may be stopped and started, and is to be running in the end."""
    if why := KafkaBroker.missing():
        broker = containers(why).ContainerKafka()
        end = broker.remove
    else:
        broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
        end = broker.stop
    try:
        broker.start()
        yield broker
    finally:
        end()


@pytest.fixture(scope="session")
def fluentd_class():
    """What `fluentd` makes."""
    if why := Fluentd.missing():
        module = containers(why)
        module.ContainerFluentd.build()
        return module.ContainerFluentd
    return Fluentd


@pytest.fixture
def fluentd(fluentd_class):
    """A function like the class Fluentd: makes real ones, and ends them when the test is over."""
    made = []

    def make(folder, settings, *, conf=None):
        made.append(fluentd_class(folder, settings, conf=conf))
        return made[-1]

    yield make
    for process in made:
        process.kill()
        getattr(process, "remove", bool)()


@pytest.fixture
def free_port():
    """A function that returns a port of 127.0.0.1 that nothing listens on."""
    return find_free_port


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """Return a folder with ca.pem, server.pem, client.pem and stranger.pem, keys included."""
    folder = tmp_path_factory.mktemp("certificates")
    ca_key = _issue(folder, "ca", None)
    _issue(folder, "server", ca_key)
    _issue(folder, "client", ca_key)
    _issue(folder, "stranger", None)
    return folder


def _issue(folder, name, ca_key):
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]) if ca_key else own
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)  # all tests take more than an hour
    certificate = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=ca_key is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(ca_key or key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    return key
