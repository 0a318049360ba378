"""Filters written by a test, run on events written by it."""

import asyncio
import textwrap

import pytest
from packed import pack, unpack

from bridge.loading import load
from bridge.pipeline import Pipeline

HEAD = "import asyncio\nimport dataclasses\nimport typing\nimport msgspec\nimport bridge\n"


class Gatherer:
    """As a worker's, on the standard library's loop."""

    def __init__(self):
        self.most = self.now = 0

    def __call__(self, function, arguments, concurrency):
        return asyncio.run(self._gather(function, arguments, concurrency))

    async def _gather(self, function, arguments, concurrency):
        limit = asyncio.Semaphore(concurrency)

        async def one(argument):
            async with limit:
                self.now += 1
                self.most = max(self.most, self.now)
                try:
                    return await function(argument)
                except Exception as error:
                    return error
                finally:
                    self.now -= 1

        return await asyncio.gather(*map(one, arguments))


class Result:
    """An outcome, decoded."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.streams = {(s.tag, s.error): bytes(s.entries) for s in outcome.streams}
        for stream in outcome.streams:
            assert len(unpack(stream.entries)) == stream.count > 0

    def records(self, tag="t"):
        return [record for _, record in unpack(self.streams.get((tag, False), b""))]

    @property
    def tags(self):
        return {tag: self.records(tag) for tag, error in self.streams if not error}

    @property
    def letters(self):
        assert len([error for _, error in self.streams if error]) <= 1
        return [
            record
            for (_, error), entries in self.streams.items()
            if error
            for _, record in unpack(entries)
        ]

    @property
    def errors(self):
        return [letter["error"] for letter in self.letters]

    @property
    def counts(self):
        return (self.outcome.received, self.outcome.dropped, self.outcome.errors)


@pytest.fixture
def gather():
    return Gatherer()


@pytest.fixture
def build(tmp_path, gather):
    """Return a function that makes a pipeline of a file's text."""

    def build(source, parameters=None, **settings):
        (tmp_path / "10_filters.py").write_text(HEAD + textwrap.dedent(source))
        return Pipeline(load(tmp_path, parameters), gather=gather, **settings)

    return build


@pytest.fixture
def run(build):
    """Return a function that runs records through a file's text."""

    def run(source, records, *, tag="t", count=None, parameters=None, payload="raw", **options):
        pipeline = build(source, parameters, payload=payload)
        entries = records if isinstance(records, bytes) else pack(records)
        return Result(pipeline.run(tag, entries, count, **options))

    return run


@pytest.fixture(scope="module")
def built(request, tmp_path_factory):
    """A pipeline of a module's own FILTERS."""
    folder = tmp_path_factory.mktemp("filters")
    (folder / "10_filters.py").write_text(HEAD + request.module.FILTERS)
    return Pipeline(load(folder), gather=Gatherer())
