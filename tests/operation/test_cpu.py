"""The CPU quota, from folders made like /proc and /sys."""

import os

import pytest

from bridge.cpu import cpu_quota

V2 = "0::/kubepods/pod1/box\n"
V1 = "5:memory:/docker/box\n4:cpu,cpuacct:/docker/box\n0::/\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "cpus"),
    [
        ("", {}, 64),
        (V2, {"kubepods/pod1/box/cpu.max": "max 100000"}, 64),
        (V2, {"kubepods/pod1/box/cpu.max": "200000 100000\n"}, 2),
        (V2, {"kubepods/pod1/box/cpu.max": "150000 100000"}, 2),
        (V2, {"kubepods/pod1/box/cpu.max": "10000 100000"}, 1),
        (V2, {"kubepods/pod1/box/cpu.max": "max 100000", "kubepods/pod1/cpu.max": "300000 100000"}, 3),
        (V2, {"kubepods/pod1/box/cpu.max": "800000 100000", "kubepods/cpu.max": "400000 100000"}, 4),
        (V2, {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "250000 50000"}, 5),
        ("0::/\n", {"cpu.max": "9900000 100000"}, 64),
        (V2, {"kubepods/pod1/box/cpu.max": "rubbish"}, 64),
        (V1, {"cpu,cpuacct/docker/box/cpu.cfs_quota_us": "200000", "cpu,cpuacct/docker/box/cpu.cfs_period_us": "100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "350000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)  # fmt: skip
def test_quota(tmp_path, monkeypatch, cgroup, files, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpu_quota(tmp_path) == cpus


def test_without_proc_the_affinity_counts(tmp_path):
    assert cpu_quota(tmp_path) == len(os.sched_getaffinity(0))


def test_this_machine():
    assert 1 <= cpu_quota() <= len(os.sched_getaffinity(0))
