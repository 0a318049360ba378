"""What the kubelet says of a pod while it comes and goes."""

import json
import subprocess
import time

from pods import await_until, statuses


class Record:
    """Follows a namespace's pods, and the logs of one of them with the times at which the kubelet took each line."""

    def __init__(self, pods, pod):
        self._pods = pods
        self._pod = pod
        self._processes = []
        self._files = {}

    def _follow(self, name, *arguments):
        self._files[name] = file = self._pods.folder() / name
        with file.open("w") as output:
            command = ["kubectl", "--namespace", self._pods.namespace, *arguments]
            self._processes.append(subprocess.Popen(command, stdout=output))

    def __enter__(self):
        self._follow("pods", "get", "pods", "--watch", "--output-watch-events", "-o", "json")
        for container in ("sidecar", "fluentd"):
            self._follow(container, "logs", self._pod, "-c", container, "--timestamps", "-f")
        await_until(lambda: all(file.stat().st_size for file in self._files.values()), str)
        return self

    def __exit__(self, *_):
        time.sleep(1)  # what is on its way still counts
        for process in self._processes:
            process.terminate()
            process.wait()

    def states(self):
        """Yield each state of each pod: its name and id, and the statuses of its containers."""
        text = self._files["pods"].read_text()
        decoder = json.JSONDecoder()
        while text := text.lstrip():
            try:
                event, end = decoder.raw_decode(text)
            except json.JSONDecodeError:  # it was ended in the middle of one
                return
            text = text[end:]
            pod = event["object"]
            yield pod["metadata"]["name"], pod["metadata"]["uid"], statuses(pod)

    def time_of(self, container, text):
        """Return when the container wrote the line that has this text."""
        (line,) = (line for line in self._files[container].read_text().splitlines() if text in line)
        return line.split()[0]
