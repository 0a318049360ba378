"""The gem on the Fluentd that is on the PATH, and on the oldest one that it supports.

BRIDGE_FLUENTD_OLDEST_BIN names the folder of the second installation's programs. With
BRIDGE_TEST_REQUIRE=fluentd-oldest its absence is a failure.
"""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from gem_pipeline import FILTERS, FROM_SOURCE, Installation, Pipeline

from bridge.local.fluentd import PROGRAM, Fluentd
from bridge.local.sidecar import Sidecar
from bridge.local.sink import Sink

OLDEST = "BRIDGE_FLUENTD_OLDEST_BIN"


def pytest_configure(config):
    config.addinivalue_line("markers", "fluentd-oldest: needs the oldest Fluentd supported")


def pytest_generate_tests(metafunc):
    if "installation" in metafunc.fixturenames:
        newest = pytest.param("newest", marks=pytest.mark.fluentd)
        oldest = pytest.param("oldest", marks=getattr(pytest.mark, "fluentd-oldest"))
        metafunc.parametrize("installation", [newest, oldest], indirect=True)


@pytest.fixture
def installation(request):
    """Each of the two in turn."""
    if request.param == "newest":
        if why := Fluentd.missing():
            pytest.skip(why)
        return Installation(Path(shutil.which(PROGRAM)).parent)
    if OLDEST not in os.environ:
        pytest.skip(f"{OLDEST} is not set")
    return Installation(Path(os.environ[OLDEST]))


@pytest.fixture
def sidecar(tmp_path):
    """A function that makes a sidecar on a Unix socket, from the text of a filter file."""
    made = []

    def make(text=FILTERS, **settings):
        filters = tmp_path / f"filters-{len(made)}"
        filters.mkdir()
        (filters / "filters.py").write_text(text)
        rpc = {
            "rpc.socket": tmp_path / f"{len(made)}.sock",
            "listen.enabled": "false",
            "workers.count": 1,
        }
        chosen = {name.replace("__", "."): value for name, value in settings.items()}
        one = Sidecar(filters, tmp_path / f"sidecar-{len(made)}", {**rpc, **chosen})
        one.address = f"unix:{rpc['rpc.socket']}"
        made.append(one)
        return one

    yield make
    for one in made:
        if one.running:
            one.kill()


@pytest.fixture
def pipeline(fluentd, tmp_path):
    """A function that starts a pipeline of a configuration and the sidecar that it uses."""
    with contextlib.ExitStack() as stack:

        def start(conf, address, **settings):
            file = tmp_path / "fluent.conf"
            file.write_text(conf)
            made = Pipeline(None)
            sink = stack.enter_context(Sink(made.take))
            settings = {**FROM_SOURCE, "SINK_PORT": str(sink.port), "SIDECAR": address, **settings}
            made.fluentd = fluentd(tmp_path / "fluentd", settings, conf=file)
            made.fluentd.start()
            return made

        yield start
