"""The formats of lines, part by part."""

import re

# What would end it has a backslash before it; possessive, so that no line takes quadratic time.
_QUOTED = r'(?:[^"\\]|\\.)*+'

# Each part is what people call it and how it looks; a line fits if all of them do in turn.
_ACCESS = (
    ("an address", r"(?:(?P<host>[\w.-]+):\d+ )?(?P<address>[\w.:-]+) "),
    ("- and a user", r"\S+ (?P<user>[^\[]+) "),
    ("[time]", r"\[(?P<time>[^\]]+)\] "),
    ('"request"', rf'"(?P<request>{_QUOTED})" '),
    ("a status of three digits", r"(?P<status>\d{3}) "),
    ("a number of bytes", r"(?P<bytes>\d+|-)"),
    ('"referer" and "agent"', rf'(?: "(?P<referer>{_QUOTED})" "(?P<agent>{_QUOTED})")?'),
    ("the seconds or the end", r"(?: (?P<seconds>\d+\.\d+|-))?\Z"),
)
_ERROR = (
    ("a date and time", r"(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) "),
    ("[level]", r"\[(?P<level>\w+)\] "),
    ("pid#tid:", r"\d+#\d+: (?:\*\d+ )?"),
    (
        "a text",
        (
            r"(?P<error>(?s:.+?))"
            r"(?:, client: (?P<address>[^,\s]+))?(?:, server: (?P<server>[^,\s]*))?"
            rf'(?:, request: "(?P<request>{_QUOTED})")?(?:, upstream: "(?P<upstream>{_QUOTED})")?'
            rf'(?:, host: "(?P<host>{_QUOTED})")?(?:, referrer: "(?P<referer>{_QUOTED})")?\Z'
        ),
    ),
)
_PARTS = {
    name: [(what, re.compile(looks, re.ASCII)) for what, looks in parts]
    for name, parts in {"access": _ACCESS, "error": _ERROR}.items()
}

#: By name, in the order in which they are tried: the most frequent first.
FORMATS = {
    name: re.compile("".join(part.pattern for _, part in parts), re.ASCII)
    for name, parts in _PARTS.items()
}

_ESCAPES = re.compile(r"((?:\\x[0-9A-Fa-f]{2})+)|\\(.)")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r"}


def unescaped(text: str) -> str:
    r"""Return what a quoted text says: nginx writes ``\x22`` for a quote and each byte of an é."""
    return _ESCAPES.sub(_meant, text) if "\\" in text else text


def _meant(found: re.Match[str]) -> str:
    codes, letter = found.groups()
    if codes:
        return bytes.fromhex(codes.replace("\\x", "")).decode("utf-8", "backslashreplace")
    return _LETTERS.get(letter, letter)


def misfit(line: str) -> str:
    """Return how far a line fits the format that it fits best, and what is missing there."""
    fits, closest, missing = 0, "", ""
    for name, parts in _PARTS.items():
        position = 0
        for what, looks in parts:
            found = looks.match(line, position)
            if found is None:
                if position > fits:
                    fits, closest, missing = position, name, what
                break
            position = found.end()
    rest = repr(line[fits : fits + 20])
    if not fits:
        return f"it begins with {rest}"
    return f"it fits {closest!r} up to column {fits}, then has {rest} instead of {missing}"
