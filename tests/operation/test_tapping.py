"""`/tap` over real HTTP: who may look, what is refused, and that no reader can hold anything up."""

import asyncio
import contextlib
import json
import socket

import aiohttp
import psutil
import pytest

from bridge import tapping
from bridge.admin import Admin
from bridge.metrics import Metrics
from bridge.tap import Subscription, Taps
from bridge.tapping import Tapping


@contextlib.asynccontextmanager
async def serving(allowed="local", host="127.0.0.1"):
    taps = Taps()
    admin = Admin(host, 0, Metrics(), dict, tap=Tapping(taps, allowed).answer)
    await admin.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{admin.port}") as client:
            yield taps, client, admin.port
    finally:
        taps.close()
        await admin.close()


async def refusal(client, **request):
    async with client.get("/tap", **request) as answer:
        return answer.status, (await answer.text() if answer.status != 200 else "")


async def ask(taps, tag=b"t", count=1):
    """Return what the taps ask for, once there is one."""
    async with asyncio.timeout(10):
        while not (asked := taps.ask(tag, count)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return asked


async def test_lines_come_as_they_are_shown_and_end_with_the_sidecar():
    async with serving() as (taps, client, _):
        async with client.get("/tap", params={"pattern": "ad.**", "rate": "5"}) as answer:
            assert answer.status == 200
            assert answer.content_type == "application/x-ndjson"
            assert json.loads(await answer.content.readline()) == {"passed": 0, "missed": 0}
            assert taps.ask(b"other", 7) == ()
            ((number, wanted, errors),) = taps.ask(b"ad.click", 70)
            assert (wanted, errors) == (5, False)
            taps.show([(number, b'{"record":{}}'), (number + 1, b"of one who has gone")])
            assert json.loads(await answer.content.readline()) == {"passed": 70, "missed": 0}
            assert await answer.content.readline() == b'{"record":{}}\n'
            taps.show([(number, b'{"record":{"last":1}}')])
            taps.close()
            assert json.loads(await answer.content.readline()) == {"passed": 70, "missed": 0}
            assert await answer.content.readline() == b'{"record":{"last":1}}\n'
            assert json.loads(await answer.content.readline())["ended"] is True
            assert await answer.content.read() == b""
    assert taps.ask(b"ad.click", 1) == ()


async def test_a_reader_that_leaves_is_asked_for_no_more(monkeypatch):
    monkeypatch.setattr("bridge.tap._STATUS_EVERY", 0.05)
    async with serving() as (taps, client, _):
        async with client.get("/tap"):
            await ask(taps)
        async with asyncio.timeout(10):
            while taps._subscriptions:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_reader_that_does_not_read_loses_lines_then_its_place(monkeypatch):
    monkeypatch.setattr(tapping, "_PATIENCE", 0.5)
    async with serving() as (taps, _, port):
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", port))
            await asyncio.get_running_loop().sock_sendall(
                slow, b"GET /tap HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            ((number, *_),) = await ask(taps)
            (subscription,) = taps._subscriptions.values()
            line = b"x" * 20_000
            for _ in range(100):  # far more than the sockets' buffers take
                taps.show([(number, line)] * 100)
                await asyncio.sleep(0)
            assert len(subscription._lines) <= 256
            assert subscription._missed > 5000
            async with asyncio.timeout(10):
                while taps._subscriptions:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("pattern=a{b", "opens a brace"),
        ("pattern=", "the tag pattern is empty"),
        (
            "pattern=a%20/(a%2B)%2Bb/",
            "'/(a+)+b/' is a regular expression, which a tap does not take",
        ),
        ("pattern=a.*.**.*.**.b", "has more than 3 wildcards: leave some out"),
        ("patern=a", "unknown parameter 'patern': did you mean pattern?"),
        ("xyz=1", "known: pattern, rate, errors"),
        ("rate=0", "rate: '0' is no number of events a second"),
        ("rate=many", "rate: 'many' is no number"),
        ("rate=nan", "rate: 'nan' is no number"),
        ("rate=1000", "up to 100"),
        ("errors=1", "errors: '1' is neither true nor false"),
    ],
)
async def test_mistakes_are_named(query, says):
    async with serving() as (_, client, _), client.get(f"/tap?{query}") as answer:
        assert answer.status == 400
        assert says in await answer.text()


@pytest.mark.parametrize("pattern", ["**.a.**.x", "*a*a*.x", "**"])
async def test_a_tag_that_takes_long_to_match_is_left_out(pattern):
    taps = Taps()
    with taps.open(pattern, rate=10, errors=False):
        assert len(taps.ask(b"a." * 100_000 + b"x", 1)) == (pattern == "**")


async def test_only_so_many_look_at_once():
    async with serving() as (taps, client, _), contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(client.get("/tap"))
        status, text = await refusal(client)
        assert (status, "end one" in text) == (429, True)
        assert len(taps.ask(b"t", 1)) == 4


@pytest.mark.parametrize(
    "headers",
    [{"Host": "rebound.example"}, {"Host": "10.1.2.3:24280"}, {"X-Forwarded-For": "10.0.0.1"}, {"Forwarded": "for=10.0.0.1"}],
)  # fmt: skip
async def test_local_is_who_speaks_to_loopback_itself(headers):
    async with serving() as (_, client, _):
        status, text = await refusal(client, headers=headers)
        assert status == 403
        assert "kubectl port-forward" in text
    async with serving("everyone") as (_, client, _):
        assert (await refusal(client, headers=headers))[0] == 200
    async with serving() as (_, client, _):
        for host in ("localhost:1", "[::1]:1", "127.0.0.1"):
            assert (await refusal(client, headers={"Host": host}))[0] == 200


async def test_from_another_address_only_where_everyone_may():
    addresses = [
        one.address
        for each in psutil.net_if_addrs().values()
        for one in each
        if one.family == socket.AF_INET and not one.address.startswith("127.")
    ]
    if not addresses:
        pytest.skip("this machine has no address but loopback")
    for allowed, expected in (("local", 403), ("everyone", 200), ("nobody", 403)):
        async with serving(allowed, "0.0.0.0") as (_, _, port):
            async with aiohttp.ClientSession(f"http://{addresses[0]}:{port}") as client:
                # Whatever it says that it asks for: what counts is where it comes from.
                assert (await refusal(client, headers={"Host": "localhost"}))[0] == expected
                assert (await client.get("/livez")).status == 200


async def test_nobody_is_nobody():
    async with serving("nobody") as (taps, client, _):
        status, text = await refusal(client)
        assert (status, "set admin.tap to local" in text) == (403, True)
        assert taps.ask(b"t", 1) == ()


async def test_no_more_is_asked_for_than_the_rate(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("bridge.tap.time.monotonic", lambda: now[0])
    one = Subscription("**", rate=10, errors=False)
    assert one.ask(b"t", 1) == 10
    assert one.ask(b"t", 1) == 0
    now[0] += 0.25
    assert one.ask(b"t", 1) == 2
    now[0] += 3600
    assert one.ask(b"t", 1) == 10
    rare = Subscription("**", rate=0.1, errors=False)
    assert [rare.ask(b"t", 1), rare.ask(b"t", 1)] == [1, 0]
    now[0] += 11
    assert rare.ask(b"t", 1) == 1


async def test_errors_count_when_they_come(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("bridge.tap.time.monotonic", lambda: now[0])
    one = Subscription("**", rate=10, errors=True)
    assert [one.ask(b"t", 1) for _ in range(100)] == [10] * 100, (
        "chunks without errors cost nothing"
    )
    for _ in range(30):
        one.show(b"{}")
    assert one.ask(b"t", 1) == 0
    assert len(one._lines) == 10, "several workers may have been asked at once"
    now[0] += 0.25
    assert one.ask(b"t", 1) == 2


async def test_many_tags_are_not_kept():
    one = Subscription("a.*", rate=1, errors=False)
    for number in range(3000):
        one.ask(b"b.%d" % number, 1)
    assert len(one._known) <= 1024
    assert one.ask(b"a.\xff", 1) == 1
