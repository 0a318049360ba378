r"""Fluentd's tag patterns.

``*`` matches one part of a tag, ``**`` none or more of them, ``{a,b}`` either pattern, white space
stands between patterns of which one must match, and ``/.../`` is a regular expression. The
translation is Fluentd's own (``lib/fluent/match.rb``, ``GlobMatchPattern``; ``event_router.rb``,
``Rule``), with its
corners: ``a.**`` matches ``a``, and a dot that ends a pattern is not looked at.

Two patterns that Fluentd takes are refused, because neither means what whoever wrote it meant: a
brace that is never closed, and a backslash with nothing after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_WHITE_SPACE = re.compile(r"[ \t\r\n\f\v]+")  # Ruby's \s
_WORD = re.compile(r"[a-zA-Z0-9_]")
_END = r"(?=\n?\Z)"  # Ruby's \Z: the end, or before a newline that ends the text

# Ruby's spellings of what Python spells otherwise. Source: Onigmo, doc/RE.
_RUBY = {r"\Z": _END, r"\z": r"\Z", r"\h": "[0-9a-fA-F]", r"\H": "[^0-9a-fA-F]", "(?<": "(?P<"}
_RUBY_TOKENS = re.compile(r"\\.|\(\?<(?![=!])", re.DOTALL)


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that says whether a tag matches.

    Args:
        pattern: one pattern or more, with white space between them.

    Raises:
        ValueError: a pattern cannot be used; says which and what to do.
    """
    globs = [glob for glob in _WHITE_SPACE.split(pattern) if glob]
    if not globs:
        raise ValueError('the tag pattern is empty; "**" matches every tag')
    if "**" in globs:
        return lambda _: True
    searches = [_compile(glob).search for glob in globs]
    if len(searches) == 1:
        search = searches[0]
        return lambda tag: search(tag) is not None
    return lambda tag: any(search(tag) for search in searches)


def _compile(glob: str) -> re.Pattern[str]:
    if not glob.startswith("/"):
        return re.compile(rf"\A{_translate(glob)}{_END}")
    if not glob.endswith("/"):
        raise ValueError(
            f"the tag pattern {glob!r} begins as a regular expression but does not end with a"
            " slash;"
            r" white space ends a pattern, within a regular expression write \s"
        )
    body = _RUBY_TOKENS.sub(lambda token: _RUBY.get(token[0], token[0]), glob[1:-1])
    try:
        # Not grouped, as in Fluentd: with "|" at the top the anchors belong to the outer
        # alternatives. Ruby's ^ and $ are those of lines, and its classes those of ASCII.
        return re.compile(rf"\A{body}{_END}", re.MULTILINE | re.ASCII)
    except re.error as error:
        raise ValueError(
            f"the tag pattern {glob!r} is no regular expression to Python: {error};"
            " write it in the syntax that Ruby and Python share"
        ) from error


# A branch a token in the order of match.rb, so that the two can be read side by side.
def _translate(glob: str) -> str:  # noqa: C901, PLR0912
    open_alternatives: list[list[str]] = []
    regex = [""]
    dot = False
    position = 0
    while position < len(glob):
        character = glob[position]
        position += 1
        if character == "*" and glob.startswith("*", position):
            position += 1
            if dot:
                regex[-1] += r"(?![^.])"
                dot = False
            if glob.startswith(".", position):
                regex[-1] += r"(?:.*\.|\A)"
                position += 1
            else:
                regex[-1] += ".*"
            continue
        if dot:
            regex[-1] += r"\."
            dot = False
        if character == "\\":
            if position == len(glob):
                raise ValueError(
                    f"the tag pattern {glob!r} ends with a backslash, which escapes nothing;"
                    " remove it"
                )
            regex[-1] += re.escape(glob[position])
            position += 1
        elif character == ".":
            dot = True
        elif character == "*":
            regex[-1] += r"[^.]*"
        elif character == "{":
            open_alternatives.append([])
            regex.append("")
        elif character in "},":
            if not open_alternatives:
                regex[-1] += re.escape(character)
                continue
            open_alternatives[-1].append(regex.pop())
            if character == ",":
                regex.append("")
            else:
                regex[-1] += f"(?:{'|'.join(open_alternatives.pop())})"
        else:
            regex[-1] += character if _WORD.match(character) else re.escape(character)
    if open_alternatives:
        raise ValueError(
            f"the tag pattern {glob!r} opens a brace and does not close it;"
            " white space ends a pattern, so none may stand between braces"
        )
    return regex[-1]
