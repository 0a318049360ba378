"""The tutorial, done as a reader does it: every edit, every command, all that is shown.

Blocks of the page:

- ``console``: commands after ``$``, each with what the terminal shows. ``...`` stands for
  anything in its line; alone in a line, for any lines. After the comment ``<!-- soon -->`` a
  command is repeated until it shows that, since what it looks at takes a moment.
- ``python`` and ``yaml`` whose first line is a comment ``# FILE`` or ``# FILE, at the end``: the
  file's text, or what is added to it.
- ``diff``: lines of the file in its head that are replaced.
"""

import difflib
import os
import re
import sys
import time
from pathlib import Path

import pytest
from terminal import Terminal

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"(<!-- soon -->\n+)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SOON = 30.0


def matches(expected, shown):
    pattern = ""
    for line in expected.splitlines():
        one = re.escape(line).replace(r"\.\.\.", ".*")
        pattern += "(.*\n)*" if line == "..." else f"{one}\n"
    return re.fullmatch(pattern, f"{shown}\n" if shown else "") is not None


def difference(command, expected, shown):
    """Return what differs; a line with ``...`` that fits is no difference."""
    told, seen = expected.splitlines(), shown.splitlines()
    if len(told) == len(seen):
        told = [b if matches(a, b) else a for a, b in zip(told, seen, strict=True)]
    return f"$ {command}\n" + "\n".join(difflib.ndiff(told, seen))


def commands(text):
    """Return the commands of a block, each with what it shows."""
    assert text.startswith("$ "), text
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [
        (command, shown.rstrip()) for command, _, shown in (one.partition("\n") for one in parts)
    ]


def edit(folder, kind, text):
    """Do an edit, as the reader would."""
    if kind == "diff":
        head, _, body = text.partition("\n")
        file = folder / head.removeprefix("+++ ")
        lines = body.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        before = file.read_text()
        assert before.count(old) == 1, f"not once in {file}:\n{old}"
        file.write_text(before.replace(old, new))
        return
    head, _, body = text.partition("\n")
    name, _, where = head.removeprefix("# ").partition(", ")
    assert where in {"", "at the end"}, head
    file = folder / name
    file.write_text((f"{file.read_text()}\n" if where else "") + body)


@pytest.mark.timeout(200)
def test_the_tutorial_is_true(tmp_path, free_port):
    page = PAGE.read_text()
    blocks = list(BLOCK.finditer(page))
    assert page.count("```") == 2 * len(blocks), "a block that nobody runs"
    port = str(free_port())  # the reader has the default
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLUENT_BRIDGE_ADMIN__PORT": port,
        # What pip is asked for is there already: this checkout. Nothing else may be taken for it.
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    with Terminal(tmp_path, environment) as terminal:
        for soon, kind, text in (block.groups() for block in blocks):
            if kind != "console":
                edit(tmp_path / "ads", kind, text)
                continue
            for command, expected in commands(text):
                run = command.replace("24280", port)
                run = run.replace("bridge tap", f"bridge tap --url http://127.0.0.1:{port}")
                shown, end = terminal.run(run), time.monotonic() + SOON
                while soon and not matches(expected, shown) and time.monotonic() < end:
                    time.sleep(0.1)
                    shown = terminal.run(run)
                assert matches(expected, shown), difference(command, expected, shown)
