"""The command ``fluent-bridge``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the process's arguments name, and exit with its code."""
    # Not at the head: a spawned worker imports this module again and needs none of it.
    from bridge.cli import main as command  # noqa: PLC0415

    sys.exit(command(sys.argv[1:]))


if __name__ == "__main__":
    main()
