"""Spark as ``benchmarks.kafka`` runs it: found, given its Kafka connector, started."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from bridge.local.processes import Program

JOB = Path(__file__).parent / "spark_job" / "job.py"
CACHE = Path.home() / ".cache" / "fluent-bridge"

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>fluent-bridge</groupId><artifactId>benchmark</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.spark</groupId>
      <artifactId>spark-sql-kafka-0-10_2.13</artifactId>
      <version>{version}</version>
    </dependency>
  </dependencies>
</project>
"""
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
# The client library alone writes kafka-clients-3.9.2.jar; what Spark has itself comes in its own version.
_ARTIFACT = re.compile(r"(.+?)-\d")


class NoSpark(Exception):
    """Why Spark cannot be measured here."""


class Installed:
    """A pyspark, and the Kafka connector of its version from Maven Central.

    Args:
        python: the Python that has it.

    Raises:
        NoSpark: it or its connector is not to be had; the message says why.
    """

    def __init__(self, python: Path) -> None:
        self.python = python
        code = "import msgspec, pandas, pyarrow, pyspark; print(pyspark.__version__, pyspark.__path__[0])"
        try:
            found = subprocess.run(
                [str(python), "-c", code], capture_output=True, text=True, check=True
            )
        except OSError as error:
            raise NoSpark(f"{python} cannot be run: {error}") from error
        except subprocess.CalledProcessError as error:
            raise NoSpark(f"{python}: {error.stderr.strip().splitlines()[-1]}") from error
        self.version, home = found.stdout.split()
        self.jars = self._connector(Path(home) / "jars")

    def _connector(self, own: Path) -> list[Path]:
        folder = CACHE / f"spark-kafka-{self.version}"
        if not (folder / "jars").is_dir():
            if shutil.which("mvn") is None:
                raise NoSpark(
                    f"mvn, to fetch the Kafka connector of Spark {self.version}, is not on the PATH"
                )
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "pom.xml").write_text(_POM.format(version=self.version))
            fetched = subprocess.run(
                ["mvn", "-q", "-B", _COPY, "-DincludeScope=runtime", "-DoutputDirectory=fetched"],
                check=False,
                cwd=folder,
                capture_output=True,
                text=True,
            )
            if fetched.returncode:
                reason = re.sub(r"\x1b\[[0-9;]*m", "", fetched.stdout).strip().partition("\n")[0]
                raise NoSpark(
                    f"the Kafka connector of Spark {self.version} cannot be fetched: {reason}"
                )
            (folder / "fetched").rename(folder / "jars")
        has = {_ARTIFACT.match(jar.name)[1] for jar in own.glob("*.jar")}
        return [
            jar
            for jar in sorted((folder / "jars").glob("*.jar"))
            if _ARTIFACT.match(jar.name)[1] not in has
        ]


class Spark:
    """The job, as a process.

    Args:
        installed: what runs it.
        udf: the kind of UDF, see spark_job/job.py.
        follow: run with the default trigger until it is stopped, not until all events are out.
    """

    def __init__(
        self,
        installed: Installed,
        udf: str,
        *,
        bootstrap: str,
        topics: tuple[str, str],
        folder: Path,
        follow: bool = False,
        options: tuple[str, ...] = (),
    ) -> None:
        command = [
            str(installed.python), str(JOB), "--bootstrap", bootstrap,
            "--input", topics[0], "--output", topics[1],
            "--checkpoint", str(folder / "checkpoint"), "--udf", udf,
            "--conf", f"spark.jars={','.join(map(str, installed.jars))}",
            "--conf", f"spark.local.dir={folder}",
            *options,
        ]  # fmt: skip
        self.program = Program(
            command + ["--follow"] * follow,
            log=folder / "spark.log",
            environment={
                "PYSPARK_PYTHON": str(installed.python),
                "PYTHONPATH": str(JOB.parent),
                "SPARK_LOCAL_IP": "127.0.0.1",
            },
        )

    def start(self) -> list[int]:
        """Start it → its process id; what it starts comes later."""
        self.program.start(lambda: True, timeout=60)
        return [self.program.pid]

    def stop(self) -> None:
        """End it."""
        self.program.stop(10)


def role(command: str) -> str:
    """Return which part of Spark a process is, by its command line."""
    if "pyspark.daemon" in command or "pyspark/daemon" in command:
        return "Python workers"
    if "java" in command.split(" ", 1)[0]:
        return "JVM"
    return "driver's Python"
