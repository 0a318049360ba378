"""The decorators do not change a function's type."""

import subprocess
import sys

SOURCE = """
from typing import assert_type
import bridge

@bridge.filter("a.**", name="f", concurrency=2)
async def f(record: dict[str, int]) -> bool: return True

@bridge.batch("a")
def g(events: list[bridge.Event]) -> list[bridge.Event | None]: return list(events)

@bridge.filter("a")
class C:
    def __init__(self, path: str) -> None: ...
    def __call__(self, record: dict[str, int]) -> dict[str, int]: return record

async def use(event: bridge.Event) -> None:
    assert_type(await f({"a": 1}), bool)
    assert_type(g([event]), list[bridge.Event | None])
    assert_type(C("/x")({"a": 1}), dict[str, int])
    assert_type(event.time, bridge.EventTime | int)
    bridge.counter("a_total", "A.", labels=["b"]).inc(b=1)
    bridge.histogram("b", "B.").observe(0.5)
    g(event)  # type: ignore[arg-type]
    bridge.filter(g)  # type: ignore[arg-type]
"""


def test_a_type_checker_sees_what_was_written(tmp_path):
    (tmp_path / "use.py").write_text(SOURCE)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(tmp_path / "use.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
