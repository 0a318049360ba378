"""Tag patterns, against a table and against Fluentd's own matcher."""

import json
import random
import shutil
import subprocess

import pytest

from bridge.tags import matcher

TABLE = [
    ("a", "a", True),
    ("a", "a.b", False),
    ("a.*", "a.b", True),
    ("a.*", "a", False),
    ("a.*", "a.b.c", False),
    ("a.*", "a.", True),
    ("a*", "abc", True),
    ("a.**", "a", True),
    ("a.**", "a.b.c", True),
    ("a.**", "ab", False),
    ("**", "anything.at.all", True),
    ("**.a", "a", True),
    ("**.a", "b.c.a", True),
    ("**.a", "ba", False),
    ("a.**.b", "a.b", True),
    ("a.**.b", "a.x.y.b", True),
    ("a**", "ab.c", True),
    ("{a,b}", "b", True),
    ("{a,b}.c", "c", False),
    ("a.{b,c.*}", "a.c.d", True),
    ("{a.{b,c},d}.*", "a.c.x", True),
    ("{a.**,b}", "a.x.y", True),
    ("a b", "b", True),
    ("a  {b,c}.d\te", "c.d", True),
    ("a b", "c", False),
    ("x **", "y", True),
    ("a.", "a", True),
    ("a-b", "a-b", True),
    ("a+", "aa", False),
    (r"a\*", "a*", True),
    (r"a\*", "ab", False),
    ("}", "}", True),
    ("a,b", "a,b", True),
    ("/a|b/", "a and more", True),
    ("/a|b/", "more b", True),
    (r"/(?<kind>a|b)\.\h+/", "a.0f", True),
    (r"/ad\.(?!click).*/", "ad.click", False),
    (r"/ad\.(?!click).*/", "ad.view", True),
    ("/(?:a|b)\\Z/", "a", True),
    ("ä.*", "ä.b", True),
]


@pytest.mark.parametrize(("pattern", "tag", "matches"), TABLE)
def test_table(pattern, tag, matches):
    assert matcher(pattern)(tag) is matches


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("a.{b,c", "close"),
        ("a.{b, c}", "white space ends a pattern"),
        ("/a", "end with a slash"),
        ("/a b/", r"write \s"),
        ("/(/", "no regular expression"),
        ("a\\", "backslash"),
    ],
)
def test_what_cannot_be_used(pattern, says):
    with pytest.raises(ValueError) as raised:
        matcher(pattern)
    assert says in str(raised.value)


def generated(count):
    chance = random.Random(20)
    words = [
        "a",
        "b",
        "ab",
        "a1",
        "_",
        "c-d",
        "*",
        "**",
        "a*",
        "*b",
        "**a",
        "a**",
        "é",
        "+",
        "<",
        "`",
    ]

    def glob(depth=0):
        parts = []
        for _ in range(chance.randint(1, 3)):
            if depth < 2 and chance.random() < 0.25:
                parts.append(
                    "{" + ",".join(glob(depth + 1) for _ in range(chance.randint(1, 3))) + "}"
                )
            else:
                parts.append(chance.choice(words))
        return chance.choice([".", ".", ".", ""]).join(parts) + chance.choice(
            ["", "", "", ".", "\\*", "\\."]
        )

    parts = ["a", "b", "ab", "a1", "_", "c-d", "", "x", "aa", "é", "+", "<", "`", "*"]
    for _ in range(count):
        pattern = " ".join(glob() for _ in range(chance.choice([1, 1, 1, 2])))
        if chance.random() < 0.6:  # a tag that has a fair chance to match
            tag = "".join(
                chance.choice(["a", "b", "x", "a.b", ""]) if c == "*" else c
                for c in chance.choice(pattern.split())
                if c not in "{}\\"
            )
            tag = chance.choice(tag.split(","))
        else:
            tag = ".".join(chance.choice(parts) for _ in range(chance.randint(1, 4)))
        yield pattern, tag


RUBY = """
require 'json'
require 'fluent/match'
pairs = JSON.parse(File.read(ARGV[0], encoding: 'UTF-8'))
puts JSON.generate(pairs.map { |pattern, tag|
  # event_router.rb, Rule#initialize
  patterns = pattern.split(/\\s+/).map { |str| Fluent::MatchPattern.create(str) }
  rule = patterns.length == 1 ? patterns[0] : Fluent::OrMatchPattern.new(patterns)
  rule.match(tag)
})
"""


@pytest.mark.fluentd
def test_fluentd_says_the_same(tmp_path):
    ruby = shutil.which("ruby3.3")
    if ruby is None:
        pytest.skip("ruby3.3 with Fluentd's gem is not on the PATH")
    pairs = [(pattern, tag) for pattern, tag, _ in TABLE] + list(generated(4000))
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    (tmp_path / "match.rb").write_text(RUBY)
    done = subprocess.run(
        [ruby, tmp_path / "match.rb", tmp_path / "pairs.json"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    theirs = json.loads(done.stdout)
    ours = [matcher(pattern)(tag) for pattern, tag in pairs]
    wrong = [(*pair, a, b) for pair, a, b in zip(pairs, ours, theirs, strict=True) if a is not b]
    assert not wrong, wrong[:20]
    assert 0.2 < sum(theirs) / len(theirs) < 0.8  # else the pairs say little
