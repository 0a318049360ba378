"""Sidecars for the tests of the gRPC service."""

import contextlib
import textwrap

import pytest
from grpc_rig import EVERYTHING, Rig

from bridge.local.sidecar import Sidecar


@pytest.fixture
def make_sidecar(tmp_path):
    """Return a function: the text of a filter file and settings → a Sidecar, not started."""
    made = []

    def make(filters, **settings):
        folder = tmp_path / f"f{len(made)}"
        folder.mkdir()
        (folder / "filters.py").write_text("import bridge\n" + textwrap.dedent(filters))
        chosen = {"listen.enabled": "false", "workers.count": 2} | {
            name.replace("__", "."): value for name, value in settings.items()
        }
        if "rpc.port" not in chosen:
            chosen.setdefault("rpc.socket", tmp_path / f"s{len(made)}")
        made.append(Sidecar(folder, tmp_path / f"log{len(made)}", chosen))
        made[-1].filters = folder
        made[-1].target = f"unix:{chosen.get('rpc.socket')}"
        return made[-1]

    yield make
    statuses = [sidecar.stop() for sidecar in made if sidecar.running]
    assert not any(statuses), made[-1].log()[-5:]


@pytest.fixture
def rig(make_sidecar):
    """Return a function: the text of a filter file and settings → a running Rig."""
    with contextlib.ExitStack() as stack:

        def start(filters, **settings):
            sidecar = make_sidecar(filters, **settings)
            sidecar.start()
            return stack.enter_context(contextlib.closing(Rig(sidecar, sidecar.target)))

        yield start


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One sidecar for the tests that must not harm it."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "filters").mkdir()
    (folder / "filters" / "f.py").write_text("import bridge\n" + EVERYTHING)
    sidecar = Sidecar(
        folder / "filters",
        folder,
        {"rpc.socket": folder / "s", "listen.enabled": "false", "workers.count": 2},
    )
    sidecar.start()
    started = Rig(sidecar, f"unix:{folder}/s")
    yield started
    started.close()
    assert sidecar.stop() == 0
