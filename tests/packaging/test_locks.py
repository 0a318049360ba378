"""The locks of what is installed: for the tests, and in the image of the sidecar."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_locks_of_sidecar_and_project_agree():
    pins = r"^([\w-]+)==(\S+)"
    of_project = dict(re.findall(pins, (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    of_image = dict(
        re.findall(pins, (ROOT / "images/sidecar/requirements.lock").read_text(), re.MULTILINE)
    )
    assert of_image == {name: of_project.get(name) for name in of_image}
