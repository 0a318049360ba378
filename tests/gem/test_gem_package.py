"""The gem itself: its own tests, its style, its build, and configurations that use it."""

import re
import subprocess

import pytest
from gem_pipeline import FROM_SOURCE, GEM

from bridge.local.fluentd import configuration

CONFIGURATIONS = sorted(configuration().parent.glob("*.conf"))
SUITES = sorted((GEM / "test" / "plugin").glob("test_*.rb"))
ON_KAFKA = [suite for suite in SUITES if "Kafka." in suite.read_text()]
ALONE = [suite for suite in SUITES if suite not in ON_KAFKA]


def run(command, *, timeout=300, **options):
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        **options,
    )
    return done.returncode, done.stdout


def run_suite(installation, suite, **environment):
    command = [
        installation.program("ruby3.3"),
        "-w",
        "-Ilib",
        "-Itest",
        str(suite.relative_to(GEM)),
    ]
    status, output = run(
        command, cwd=GEM, env=installation.environment(**FROM_SOURCE, **environment)
    )
    assert status == 0, output
    assert re.search(r"[1-9]\d* tests", output), output
    ours = [line for line in output.splitlines() if "warning:" in line and str(GEM) in line]
    assert not ours, "\n".join(ours)


@pytest.mark.timeout(310)
@pytest.mark.parametrize("suite", ALONE, ids=lambda suite: suite.stem)
def test_suite(installation, suite):
    run_suite(installation, suite)


@pytest.mark.timeout(310)
@pytest.mark.parametrize("suite", ON_KAFKA, ids=lambda suite: suite.stem)
def test_suite_on_kafka(installation, suite, kafka):
    run_suite(installation, suite, BRIDGE_TEST_KAFKA=kafka.bootstrap)


@pytest.mark.fluentd
def test_style(fluentd_class):
    status, output = run(["rubocop", "--format", "simple"], cwd=GEM)
    assert status == 0, output


@pytest.fixture
def installed(installation, tmp_path):
    """The environment of an installation that has the gem, built and installed from its file."""
    gem = tmp_path / "fluent-plugin-bridge.gem"
    environment = installation.environment(
        GEM_HOME=tmp_path / "gems", BUFFER_DIR=tmp_path / "buffers"
    )
    program = installation.program("fluent-gem")
    status, output = run(
        [program, "build", "fluent-plugin-bridge.gemspec", "--strict", "--output", str(gem)],
        cwd=GEM,
        env=environment,
    )
    assert status == 0, output
    status, output = run(
        [program, "install", "--local", "--no-document", str(gem)], env=environment
    )
    assert status == 0, output
    return environment


def dry_run(installation, environment, conf):
    status, output = run(
        [installation.program("fluentd"), "--dry-run", "--config", str(conf)], env=environment
    )
    return (
        status,
        [line for line in output.splitlines() if "[warn]" in line or "[error]" in line],
        output,
    )


def test_installs_from_its_file_and_every_configuration_is_accepted(
    installation, installed, tmp_path
):
    for conf in CONFIGURATIONS:
        status, complaints, output = dry_run(installation, installed, conf)
        assert (status, complaints) == (0, []), f"{conf.name}: {output}"
        if "bridge" in re.findall(r"@type (\w+)", conf.read_text()):
            assert "gem 'fluent-plugin-bridge'" in output
    readme = (GEM / "README.md").read_text()
    for number, example in enumerate(re.findall(r"((?:^    .*\n|^\n)+)", readme, re.MULTILINE)):
        if "@type" not in example:
            continue
        conf = tmp_path / f"readme-{number}.conf"
        conf.write_text(example.replace("/var/log/fluent", str(tmp_path)))
        status, complaints, output = dry_run(installation, installed, conf)
        assert (status, complaints) == (0, []), f"{example}\n{output}"


def test_files_of_the_gem(installation, installed, tmp_path):
    [folder] = (tmp_path / "gems" / "gems").iterdir()
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    source = {str(file.relative_to(GEM)) for file in (GEM / "lib").rglob("*.rb")}
    assert found == source | {"LICENSE", "README.md"}


FILTER = "<filter **>\n  @type bridge\n  {}\n</filter>"
OUTPUT = "<label @X>\n  <match **>\n    @type null\n  </match>\n</label>\n<match **>\n  @type bridge\n  {}\n</match>"


@pytest.mark.parametrize(
    ("section", "parameters", "said"),
    [
        (FILTER, "", "'address' parameter is required"),
        (
            FILTER,
            "address /run/sidecar.sock",
            "is neither `unix:/path/of/socket` nor `host:port`",
        ),
        (FILTER, "address unix:/x\n  adress unix:/x", "parameter 'adress' in <filter **>"),
        (OUTPUT, "@label @X\n  address unix:/x", "there is no <buffer>: add one"),
        (
            OUTPUT,
            "address unix:/x\n  <buffer tag>\n  </buffer>",
            "results would come back to this <match>: set @label",
        ),
        (
            OUTPUT,
            "@label @X\n  address unix:/x\n  <buffer id>\n  </buffer>",
            "<buffer id> has no `tag`",
        ),
        (
            OUTPUT,
            "@label @ROOT\n  address unix:/x\n  <buffer tag>\n  </buffer>",
            "another label than the one that it stands in (@ROOT)",
        ),
    ],
)
def test_a_mistake_in_the_configuration_is_told_in_a_line(
    installation, tmp_path, section, parameters, said
):
    conf = tmp_path / "wrong.conf"
    conf.write_text(section.format(parameters))
    _, complaints, output = dry_run(installation, installation.environment(**FROM_SOURCE), conf)
    assert any(said in line for line in complaints), output
    assert ":in `" not in output


def test_the_versions_are_the_project_s():
    assert f"VERSION = '{version()}'" in (GEM / "lib/fluent/plugin/bridge/version.rb").read_text()


def version():
    from bridge.version import __version__

    return __version__
