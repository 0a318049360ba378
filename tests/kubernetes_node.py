"""The Kubernetes node of the tests: `kube-node` starts and stops it, containerd's records lead to its processes."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

PROGRAM = "kube-node"


class Node:
    """The node of this machine; there is but one."""

    ADDRESS = "10.245.0.1"  # of this machine, as pods see it

    @staticmethod
    def _run(*arguments):
        done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, f"{PROGRAM} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    @classmethod
    def running(cls):
        """Whether it runs; kubectl then finds it."""
        if subprocess.run([PROGRAM, "status"], capture_output=True).returncode != 0:
            return False
        # Where it would say so if it were started now.
        state = Path(os.environ.get("KUBE_NODE_STATE", "/var/lib/kube-node"))
        os.environ["KUBECONFIG"] = str(state / "conf" / "admin.conf")
        return True

    @classmethod
    def start(cls):
        os.environ["KUBECONFIG"] = cls._run("start")

    @classmethod
    def stop(cls):
        cls._run("stop")

    @classmethod
    def load(cls, archive):
        """Give it the images of an archive."""
        cls._run("load", archive)

    @classmethod
    def tag(cls, image, other):
        """Give an image that it has a second name."""
        cls._run("ctr", "images", "tag", "--force", image, other)

    @staticmethod
    def processes(container):
        """Return the processes of a container, as this machine numbers them: {number in the container: number here}."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                if container in (folder / "cgroup").read_text():
                    (numbers,) = (
                        line.split()[1:]
                        for line in (folder / "status").read_text().splitlines()
                        if line.startswith("NSpid:")
                    )
                    found[int(numbers[-1])] = int(folder.name)
        return found

    @classmethod
    def kill(cls, container):
        """End a container by SIGKILL of its first process, as the kernel may."""
        os.kill(cls.processes(container)[1], signal.SIGKILL)
