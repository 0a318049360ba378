"""What processes take, of CPU and of memory, read from /proc."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")

# The role of a process in what is measured, by its id and its command line; None leaves it out.
Role = Callable[[int, str], "str | None"]


class Processes:
    """Programs with all that they have started, and what each role of them has taken.

    Args:
        roots: the programs' process ids.
        role: names the role of each process.
    """

    def __init__(self, roots: Iterable[int], role: Role) -> None:
        self._roots = set(roots)
        self._role = role
        self._roles: dict[int, str | None] = {}
        self._cpu: dict[int, float] = {}

    @property
    def running(self) -> bool:
        """Whether all of the programs are still there."""
        return all(_stat(pid) is not None for pid in self._roots)

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each role so far, those of processes that have ended included.

        What a process takes between the last look at it and its end is not seen.
        """
        for pid, (_, cpu) in self._look().items():
            self._cpu[pid] = cpu
        sums: dict[str, float] = {}
        for pid, cpu in self._cpu.items():
            role = self._roles[pid]
            if role is not None:
                sums[role] = sums.get(role, 0.0) + cpu
        return sums

    def memory(self) -> int:
        """Return the bytes that they take now, shared ones divided among those who share (PSS)."""
        return sum(_pss(pid) for pid in self._look() if self._roles[pid] is not None)

    def _look(self) -> dict[int, tuple[int, float]]:
        every = {pid: found for pid in _pids() if (found := _stat(pid)) is not None}
        # A process whose parent has ended belongs to init, but was seen before.
        ours = {pid for pid in every if pid in self._roots or pid in self._roles}
        grown = True
        while grown:
            more = {pid for pid, (parent, _) in every.items() if parent in ours} - ours
            ours |= more
            grown = bool(more)
        for (
            pid
        ) in ours:  # each time: until it has called exec, a child has its parent's command line
            self._roles[pid] = self._role(pid, _command(pid))
        return {pid: every[pid] for pid in ours}


def machine() -> str:
    """Return what this runs on, for the line under a table."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{os.cpu_count()} cores, {model}, {platform.system()} {platform.release()}, Python"
        f" {platform.python_version()}"
    )


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> tuple[int, float] | None:
    """Return the parent's id and the CPU seconds of a process, None where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc_pid_stat(5): the name, in parentheses, may hold anything; after it state, ppid, ... utime, stime.
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] == "Z":
        return None
    return int(fields[1]), (int(fields[11]) + int(fields[12])) * _TICK


def _command(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
