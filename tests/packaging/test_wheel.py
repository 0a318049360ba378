"""The wheel in an environment that has nothing else: what a user installs."""

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory):
    """Return the command of an empty environment with the wheel and the locked dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    # The lock constrains the versions; what is installed is what the wheel asks for.
    pins = re.sub(r" \\\n(    --hash=\S+( \\\n)?)+", "", (ROOT / "requirements.lock").read_text())
    (folder / "constraints").write_text(pins)
    subprocess.run([*pip, "--constraint", folder / "constraints", wheel], check=True)
    return folder / "bin" / "fluent-bridge"


def test_it_holds_what_a_user_needs_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "bridge/py.typed" in names
    assert "bridge/fluent-conf/forward.conf" in names
    assert "bridge/demo/filters/10_ads.py" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.timeout(300)
def test_the_demo_runs_from_it_with_stand_ins(command, tmp_path):
    done = subprocess.run(
        [command, "demo", "--events", "20000"],
        cwd=tmp_path,
        env={"PATH": "/nowhere"},  # neither fluentd nor kafka-server-start.sh
        capture_output=True,
        text=True,
        timeout=200,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "stand-in: librdkafka's mock cluster" in done.stdout
    assert "20000 in = 19560 out + 400 dropped + 40 dead-lettered" in done.stdout
    assert "a price of -1 is not possible" in done.stdout
    assert "KeyError" in done.stdout
    assert "events/s" in done.stdout


def test_settings_are_shown_from_it(command, tmp_path):
    done = subprocess.run([command, "settings"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "listen.port" in done.stdout


@pytest.mark.timeout(300)
def test_a_case_of_the_users_own_passes_with_the_command_and_with_pytest(command, tmp_path):
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "site.py").write_text(
        "import bridge\n"
        '@bridge.filter("ad.**")\n'
        "def site(record: dict) -> dict:\n"
        '    record["site"] = record["url"].split("/", 3)[2]\n'
        "    return record\n"
    )
    (tmp_path / "filters" / "site.cases.yaml").write_text(
        "cases:\n"
        "  - tag: ad.click\n"
        "    input: {url: http://a.example/x}\n"
        "    output: {url: http://a.example/x, site: a.example}\n"
    )
    (tmp_path / "test_site.py").write_text(
        "def test_site(fluent_bridge):\n"
        '    result = fluent_bridge("filters").feed("ad.click", {"url": "a://b/"})\n'
        '    assert result.records == [{"url": "a://b/", "site": "b"}]\n'
    )
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 100}
    done = subprocess.run([command, "test"], **run)  # without pytest, which is not there yet
    assert (done.returncode, done.stdout) == (0, "1 case passed\n"), done.stderr
    python, constraints = command.parent / "python", command.parents[1] / "constraints"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--constraint", constraints, "pytest"],
        check=True,
    )
    # Strict: pytest warns of what it would rewrite and cannot, as it was imported before.
    done = subprocess.run([python, "-m", "pytest", "-W", "error", "-q"], **run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
