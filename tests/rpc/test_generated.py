"""What is generated from proto/ is checked in, and is what the script makes of it now."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GEM = "fluent-conf/fluent-plugin-bridge/lib"


def generate(what, folder):
    subprocess.run(
        [ROOT / "scripts" / "generate-proto", what, folder],
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
    )


def assert_checked_in(folder, made):
    made = {path.relative_to(folder): path.read_bytes() for path in made}
    assert made
    for path, content in made.items():
        assert (ROOT / path).read_bytes() == content, (
            f"{path} is not what proto/ says: run scripts/generate-proto and commit it"
        )
    kept = {
        path.relative_to(ROOT)
        for parent in {(ROOT / path).parent for path in made}
        for path in parent.glob("*_pb*")
    }
    assert kept == set(made), "a file is left of what is no more"


def test_python(tmp_path):
    generate("python", tmp_path)
    assert_checked_in(tmp_path, (tmp_path / "bridge").rglob("*.py*"))


@pytest.mark.fluentd
def test_ruby(tmp_path):
    if not shutil.which("grpc_tools_ruby_protoc"):
        pytest.skip("grpc_tools_ruby_protoc, of the gem grpc-tools, is not on the PATH")
    generate("ruby", tmp_path)
    assert_checked_in(tmp_path, (tmp_path / GEM).rglob("*.rb"))
