"""The images as users build them, and what is in their archives.

With BRIDGE_TEST_GEMS, a folder of gems, they are built offline: the base from debootstrap, the wheels from a folder that
pip fills once by the lock. Without it, from the registries that the files name; where that fails, it is said.
"""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bridge.version import __version__

ROOT = Path(__file__).parents[1]
IMAGES = ("sidecar", "fluentd")
ENGINES = ("docker", "podman", "buildah")


def missing():
    """Return why images cannot be built here, or nothing."""
    if not any(shutil.which(engine) for engine in ENGINES):
        return f"none of {', '.join(ENGINES)} is on the PATH"
    return ""


def build():
    """Build both images, once: {name: tag}, the tag being the one by which pods name them."""
    sizes()
    return {name: f"fluent-bridge-{name}:{__version__}" for name in IMAGES}


@functools.cache
def sizes():
    """Build both images; return what the script says in the end, a line of sizes for each."""
    done = script(ARCHIVES=_folder("archives"))
    hint = "" if "BRIDGE_TEST_GEMS" in os.environ else "BRIDGE_TEST_GEMS: see CONTRIBUTING.md\n"
    assert done.returncode == 0, f"{hint}{done.stdout[-5000:]}{done.stderr[-5000:]}"
    return [line for line in done.stdout.splitlines() if line.endswith(" compressed")]


def script(*arguments, **variables):
    """Run the script that builds them as a user does; return how it ended."""
    environment = {**os.environ, "PYTHON": sys.executable}
    if gems := os.environ.get("BRIDGE_TEST_GEMS"):
        environment |= {"GEMS": gems, "WHEELS": str(_wheels())} | _bases()
    environment |= {name: str(value) for name, value in variables.items()}
    command = ["images/build", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def build_folder(folder, tag):
    """Build the image of a folder that has a Dockerfile, with the engine of the script; return its archive."""
    archive = folder / "image.tar"
    steps = '. images/engine; engine_build --tag "$0" "$1" && engine_save "$0" "$2"'
    _run("bash", "-euc", steps, f"docker.io/library/{tag}", folder, archive)
    return archive


def archive(name):
    """Return the archive of one of the images, which are built if they are not yet."""
    build()
    return _folder("archives") / f"fluent-bridge-{name}-{__version__}.tar"


def load(node):
    """Build the images and give them to the node; return what `build` does."""
    tags = build()
    for name in IMAGES:
        node.load(archive(name))
    return tags


def _run(*command, **options):
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout[-5000:]}{done.stderr[-5000:]}"
    return done.stdout


def _folder(name):
    """Return a folder that the next session finds again."""
    folder = Path(tempfile.gettempdir(), "fluent-bridge-images", name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _wheels():
    lock = ROOT / "images" / "sidecar" / "requirements.lock"
    folder = _folder(f"wheels-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}")
    if not (folder / ".complete").exists():
        download(folder, "--require-hashes", "--requirement", lock)
        (folder / ".complete").touch()
    return folder


def download(folder, *arguments):
    """Download wheels for the Python that the image has, which is not the one that runs here."""
    options = ("--python-version", "3.13", "--only-binary=:all:", "--no-deps", "--dest", folder)
    _run(sys.executable, "-m", "pip", "download", "--quiet", *options, *arguments)


def _bases():
    """Return the variables that name the bases, which are made once for their script and the packages in them."""
    sources = ("base", "sidecar/Dockerfile", "fluentd/Dockerfile")
    text = "".join(
        line
        for name in sources
        for line in (ROOT / "images" / name).read_text().splitlines(keepends=True)
        if name == "base" or "PACKAGES=" in line
    )
    made = _folder("bases") / hashlib.sha256(text.encode()).hexdigest()[:12]
    if not made.exists():
        made.write_text(_run("images/base"))
    return dict(line.split("=", 1) for line in made.read_text().split())


@dataclass
class Archive:
    """An image as `docker save` writes it."""

    names: list
    config: dict
    files: dict  # of all layers together, by path: the last layer's
    all_files: set  # paths in any layer, removed by a later one or not
    size: int  # bytes, of the unpacked layers


def read(path):
    """Read an archive."""
    files, all_files, size = {}, set(), 0
    with tarfile.open(path) as tar:
        (manifest,) = json.load(tar.extractfile("manifest.json"))
        config = json.load(tar.extractfile(manifest["Config"]))
        for layer in manifest["Layers"]:
            size += tar.getmember(layer).size
            with tarfile.open(fileobj=tar.extractfile(layer)) as members:
                for member in members:
                    name = "/" + member.name.removeprefix("./")
                    if ".wh." in name:  # says that a layer below is hidden
                        continue
                    files[name] = member
                    if not member.isdir():
                        all_files.add(name)
    return Archive(manifest["RepoTags"], config, files, all_files, size)
