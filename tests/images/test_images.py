"""The images that users build: what is in them, and how they start as a pod starts them."""

import datetime as dt
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import images_rig
import pytest

from bridge.version import __version__

ROOT = Path(__file__).parents[2]
MB = 1_000_000
SIDECAR_LIMIT = 200 * MB
START_LIMIT = 5  # seconds

# As the namespaces of the manifests enforce it.
RESTRICTED = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

FORBIDDEN = {
    "a compiler or its kin": r"/s?bin/(\S+-)?(gcc|g\+\+|cc|c\+\+|clang|cpp|ld|as|make|rustc)(-[\d.]+)?$",
    "pip, or what brings it": r"/pip3?$|/(dist|site)-packages/pip/|/ensurepip/_bundled/|python-wheels/",
    "a cache": r"/\.cache/|/var/cache/(apt|debconf)/.|/opt/fluentd/cache/|\.(gem|whl|deb)$",
    "lists of packages": r"/var/lib/apt/lists/.",
    "a shell's history": r"/\.\w*_history$|/\.wget-hsts$|/\.lesshst$",
    "headers and objects to build with": r"^/(opt|usr/include)/.*\.(h|hpp|a|o)$",
    "logs of its making": r"^/var/log/.*\w\.log$|/(mkmf\.log|gem_make\.out)$",
    "settings of this machine's pip": r"/pip\.conf$",
}

pytestmark = [
    pytest.mark.timeout(1200),  # the first one builds them, offline with their base
    pytest.mark.smoke,
]


@pytest.fixture(scope="module", autouse=True)
def _asked_for(node):
    """Building takes minutes: done where a node has been asked for, which everything here ends on."""


@pytest.fixture(params=images_rig.IMAGES)
def image(request):
    return request.param


def test_sizes(built, figures):
    assert len(images_rig.sizes()) == len(built)
    for line in images_rig.sizes():
        figures(line)
    assert built["sidecar"].size < SIDECAR_LIMIT


def test_they_run_as_a_user_of_their_own_by_number(built, image):
    config = built[image].config["config"]
    assert config["User"] == "10001:10001"
    assert not [
        path
        for path, member in built[image].files.items()
        if member.isfile() and member.mode & 0o6000
    ]


def test_they_run_what_the_manifests_expect(built):
    sidecar, fluentd = (built[name].config["config"] for name in images_rig.IMAGES)
    assert (sidecar["Entrypoint"], sidecar["Cmd"]) == (["fluent-bridge"], ["run"])
    assert sidecar["WorkingDir"] == "/work"
    assert (fluentd["Entrypoint"], fluentd["Cmd"]) == (["fluentd"], ["-c", "/etc/fluent/pod.conf"])


def test_labels_say_what_it_is_and_from_which_commit(built, image):
    labels = built[image].config["config"]["Labels"]
    label = {key.removeprefix("org.opencontainers.image."): value for key, value in labels.items()}
    assert label["title"] == f"fluent-bridge-{image}"
    assert label["version"] == __version__
    assert label["licenses"] == "Apache-2.0"
    assert label["description"]
    assert label["base.name"]
    git = ["git", "-C", str(ROOT)]
    built_from = subprocess.check_output(
        [*git, "log", "-1", "--format=%cI", label["revision"]], text=True
    )
    assert dt.datetime.fromisoformat(label["created"]) == dt.datetime.fromisoformat(
        built_from.strip()
    )
    # HEAD may have moved on since.
    subprocess.run([*git, "merge-base", "--is-ancestor", label["revision"], "HEAD"], check=True)
    assert not [value for value in labels.values() if "://" in value]


def test_names_are_what_pods_call_them(built, image):
    """`docker run fluent-bridge-sidecar:0.1.0` and a pod mean the same, without any registry."""
    assert built[image].names == [f"docker.io/library/fluent-bridge-{image}:{__version__}"]


def test_an_archive_that_cannot_be_written_fails_the_build(built, tmp_path):
    (tmp_path / "file").touch()
    done = images_rig.script("fluentd", "sidecar", ARCHIVES=tmp_path / "file")
    assert done.returncode != 0
    assert "file" in done.stderr


def test_names_have_the_registry_before_them(built, tmp_path):
    done = images_rig.script("sidecar", REGISTRY="localhost:1/ads", ARCHIVES=tmp_path)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.iterdir()
    assert images_rig.read(archive).names == [
        f"localhost:1/ads/fluent-bridge-sidecar:{__version__}"
    ]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_layer_holds(built, image, what):
    pattern = re.compile(FORBIDDEN[what])
    assert [path for path in sorted(built[image].all_files) if pattern.search(path)] == []


def test_byte_code_is_there_as_nothing_can_be_written_later(built):
    paths = built["sidecar"].all_files
    sources = [path for path in paths if path.startswith("/opt/") and path.endswith(".py")]
    assert any(path.endswith("/bridge/app.py") for path in sources)
    compiled = re.compile(r"__pycache__/(.*)\.cpython-\d+\.pyc$")
    have = {compiled.sub(r"\1.py", path) for path in paths if compiled.search(path)}
    assert [path for path in sorted(sources) if path not in have] == []


@pytest.mark.parametrize(
    ("image", "lock", "pattern"),
    [
        ("sidecar", "images/sidecar/requirements.lock", r"^([\w-]+)==(\S+)"),
        ("fluentd", "images/fluentd/Gemfile.lock", r"^    ([\w.-]+) \(([\d.]+)[\w-]*\)$"),
    ],
)
def test_versions_are_those_of_the_lock(built, image, lock, pattern):
    locked = dict(re.findall(pattern, (ROOT / lock).read_text(), re.MULTILINE))
    assert len(locked) > 20
    installed = {}
    for path in built[image].all_files:
        if found := re.search(r"^/opt/.*-packages/([^/]+)-([^/-]+)\.dist-info/METADATA$", path):
            installed[found[1].replace("_", "-").lower()] = found[2]
        if found := re.search(
            r"^/opt/fluentd/specifications/([\w.-]+?)-(\d[\d.]*)[\w-]*\.gemspec$", path
        ):
            installed[found[1]] = found[2]
    own = {"sidecar": "fluent-bridge", "fluentd": "fluent-plugin-bridge"}[image]
    assert installed.pop(own) == __version__
    of_others = {"colorama", "timeout"}  # Windows alone; comes with Ruby
    assert installed == {name: version for name, version in locked.items() if name not in of_others}


# -- on the node ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def namespace(kubectl, images):
    """A namespace for each way: restricted, and one that may mount folders of this machine as `docker run -v` does."""
    names = {"restricted": "images", "privileged": "images-mounts"}
    for level, name in names.items():
        kubectl("delete", "namespace", name, "--ignore-not-found")
        kubectl("create", "namespace", name)
        kubectl("label", "namespace", name, f"pod-security.kubernetes.io/enforce={level}")
    yield names
    for name in names.values():
        kubectl("delete", "namespace", name, "--wait=false")


def apply(kubectl, namespace, *objects):
    items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(items))


def pod(name, containers, volumes):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"securityContext": RESTRICTED, **one} for one in containers],
            "volumes": volumes,
        },
    }


@pytest.fixture
def run(kubectl, images, namespace):
    """Return a function that runs fluent-bridge as `docker run -v FOLDER:/work:ro` does: (exit code, output)."""
    where = namespace["privileged"]

    def run(folder, *arguments, image=images["sidecar"]):
        volumes = [
            {"name": "work", "hostPath": {"path": str(folder)}},
            {"name": "tmp", "emptyDir": {}},
        ]
        mounts = [
            {"name": "work", "mountPath": "/work", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ]
        container = {
            "name": "run",
            "image": image,
            "args": list(arguments),
            "volumeMounts": mounts,
        }
        kubectl("delete", "pod", "run", "-n", where, "--ignore-not-found", "--wait")
        apply(kubectl, where, pod("run", [container], volumes))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            state = json.loads(kubectl("get", "pod", "run", "-n", where, "-o", "json"))["status"]
            if state["phase"] in ("Succeeded", "Failed"):
                ended = state["containerStatuses"][0]["state"]["terminated"]
                return ended["exitCode"], kubectl("logs", "run", "-n", where)
            time.sleep(0.2)
        raise AssertionError(state)

    return run


@pytest.fixture
def project(tmp_path):
    """What `init` writes, where everybody may read it: pytest's own folders are for its user alone."""
    folder = Path("/tmp", f"fluent-bridge-project-{tmp_path.name}")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "bridge", "init", folder], check=True, capture_output=True
    )
    yield folder
    shutil.rmtree(folder)


def test_a_users_project_is_checked_and_its_cases_run(run, project):
    assert (code_and_text := run(project, "check"))[0] == 0, code_and_text
    code, text = run(project, "test")
    assert code == 0, text
    assert re.search(r"\d+ cases? passed", text)


def test_a_filter_that_does_not_load_fails_the_check(run, project):
    broken = next((project / "filters").glob("*.py"))
    broken.write_text("import nothing_like_it\n" + broken.read_text())
    code, text = run(project, "check")
    assert code != 0
    assert "nothing_like_it" in text


def test_a_case_that_fails_fails_the_test(run, project):
    for cases in (project / "filters").glob("*.cases.yaml"):
        cases.write_text(
            "cases:\n  - tag: ad.click\n    input: {a: 1}\n    output: {never: this}\n"
        )
    code, text = run(project, "test")
    assert code != 0, text
    assert "never" in text


def test_an_example_is_checked(run, project):
    shutil.rmtree(project)
    shutil.copytree(ROOT / "examples" / "parse-log", project)
    assert (code_and_text := run(project, "check"))[0] == 0, code_and_text


MEAN = """
import bridge
import numpy

@bridge.filter("**")
def mean(record):
    return {"mean": float(numpy.array(record["values"]).mean())}
"""


def test_packages_of_filters_are_in_an_image_of_ones_own(node, images, run, project, tmp_path):
    """By the Dockerfile that the README of the images shows; numpy comes from a folder."""
    text = (ROOT / "images" / "README.md").read_text()
    (dockerfile,) = re.findall(r"```dockerfile\n(.*?)```", text, re.DOTALL)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {images["sidecar"]}
    (tmp_path / "Dockerfile").write_text(dockerfile)
    lock = (ROOT / "requirements.lock").read_text()
    version = re.findall(r"^numpy==(\S+)", lock, re.MULTILINE)[-1]  # the newest Python's
    images_rig.download(tmp_path / "wheels", f"numpy=={version}")
    (tmp_path / "requirements.txt").write_text("--no-index\n--find-links wheels\nnumpy\n")
    own = "fluent-bridge-with-packages:0.1.0"
    node.load(images_rig.build_folder(tmp_path, own))

    shutil.rmtree(project / "filters")
    (project / "filters").mkdir()
    (project / "filters" / "mean.py").write_text(MEAN)
    (project / "filters" / "mean.cases.yaml").write_text(
        "cases:\n  - {tag: a, input: {values: [1, 2]}, output: {mean: 1.5}}\n"
    )
    code, text = run(project, "check")
    assert code != 0
    assert "numpy" in text
    for command in ("check", "test"):
        code, text = run(project, command, image=own)
        assert code == 0, text


def test_both_start_in_a_restricted_pod(kubectl, images, namespace, figures):
    """With the very configurations of the project; Kafka is away, as it may be when a pod starts."""
    where = namespace["restricted"]
    confs = {path.name: path.read_text() for path in (ROOT / "fluent-conf").glob("*.conf")}
    filters = {
        "pass.py": 'import bridge\n\n@bridge.filter("**")\ndef same(record):\n    return record\n'
    }
    maps = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        for name, data in (("confs", confs), ("filters", filters))
    ]
    settings = {
        "RPC__SOCKET": "/run/fluent-bridge/sidecar.sock",
        "LISTEN__ENABLED": "false",
        "FILTERS__PAYLOAD": "json",
        "FILTERS__PATH": "/etc/fluent-bridge/filters",
        "ADMIN__HOST": "0.0.0.0",
        "ADMIN__TAP": "nobody",
    }
    shared = {"name": "run", "mountPath": "/run/fluent-bridge"}
    sidecar = {
        "name": "sidecar",
        "image": images["sidecar"],
        "env": [
            {"name": f"FLUENT_BRIDGE_{name}", "value": value} for name, value in settings.items()
        ],
        "volumeMounts": [
            shared,
            {"name": "sidecar-tmp", "mountPath": "/tmp"},
            {"name": "filters", "mountPath": "/etc/fluent-bridge/filters"},
        ],
    }
    fluentd = {
        "name": "fluentd",
        "image": images["fluentd"],
        "env": [{"name": "KAFKA_BROKERS", "value": "127.0.0.1:9"}],
        "volumeMounts": [
            shared,
            {"name": "fluentd-tmp", "mountPath": "/tmp"},
            {"name": "confs", "mountPath": "/etc/fluent"},
        ],
    }
    volumes = [{"name": name, "emptyDir": {}} for name in ("run", "sidecar-tmp", "fluentd-tmp")]
    volumes += [{"name": name, "configMap": {"name": name}} for name in ("confs", "filters")]
    for container, path in ((sidecar, ":24280/readyz"), (fluentd, ":24231/metrics")):
        name = container["name"]
        apply(kubectl, where, *maps, pod(name, [container], volumes))
        try:
            took = _until_it_answers(kubectl, where, name, path)
            figures(f"{name}: {took:.1f} s from the start of its container to {path}")
            assert took < START_LIMIT
            root = kubectl(
                "exec",
                "-n",
                where,
                name,
                "--",
                "sh",
                "-c",
                "id -u; touch /x 2>&1; cat /proc/1/status",
                check=False,
            )
            assert root.stdout.splitlines()[0] == "10001"
            assert "Read-only file system" in root.stdout
            assert re.search(r"^CapEff:\s+0+$", root.stdout, re.MULTILINE)
            assert re.search(r"^NoNewPrivs:\s+1$", root.stdout, re.MULTILINE)
            assert re.search(r"^Seccomp:\s+2$", root.stdout, re.MULTILINE)
        finally:
            kubectl("delete", "pod", name, "-n", where, "--wait")


def _until_it_answers(kubectl, namespace, name, path):
    """Return seconds from the kubelet's start of the container, of which it keeps whole ones: up to one too many."""
    deadline = time.monotonic() + 60
    started = address = None
    while time.monotonic() < deadline:
        if started is None:
            status = json.loads(kubectl("get", "pod", name, "-n", namespace, "-o", "json"))[
                "status"
            ]
            (container,) = status.get("containerStatuses", [{"state": {}}])
            if running := container["state"].get("running"):
                started, address = dt.datetime.fromisoformat(running["startedAt"]), status["podIP"]
        else:
            try:
                with urllib.request.urlopen(f"http://{address}{path}", timeout=1) as answer:
                    if answer.status == 200:
                        return (dt.datetime.now(dt.UTC) - started).total_seconds()
            except OSError:
                pass
        time.sleep(0.05)
    raise AssertionError(kubectl("logs", name, "-n", namespace) or status)
