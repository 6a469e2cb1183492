"""How requests are sent does not matter: to their answers, nor to their refusals."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import Message
from email.parser import BytesParser

import aiohttp
import pytest

from serving.gateway.exchange import Exchange
from serving.gateway.generate import Generator
from serving.gateway.settings import GatewaySettings
from tests.kit.bad_requests import GOOD
from tests.kit.exposition import scrape
from tests.unit.gateway.running import Running, running

RATE = "/gen/routine/rate"
FULL = GatewaySettings(max_in_flight=1, max_queue_seconds=1e-9, keep_alive_seconds=1)
"""One request at the engine, and nobody may wait."""
BODY = json.dumps(GOOD).encode()
LENGTH = f"content-length: {len(BODY)}\r\n"
CHUNKED = "transfer-encoding: chunked\r\n"
OFFER = (
    "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
)
"""Java's, of HTTP/2."""


class Connection:
    """A client that sends what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    def close(self) -> None:
        self._writer.transport.abort()

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self._writer.write(part)
            await asyncio.sleep(0.01)

    async def answer(self) -> tuple[int, Message, bytes]:
        """Return the next response: status, headers and body."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        line, _, rest = head.partition(b"\r\n")
        headers = BytesParser().parsebytes(rest)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(line.split()[1]), headers, body


def head(
    lines: str = LENGTH, method: str = "POST", path: str = RATE, version: str = "1.1"
) -> bytes:
    return (
        f"{method} {path} HTTP/{version}\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"{lines}\r\n"
    ).encode()


@asynccontextmanager
async def connected(
    settings: GatewaySettings = FULL,
) -> AsyncIterator[tuple[Running, Connection, aiohttp.ClientSession]]:
    """Yield a server, a connection to it, and an ordinary client."""
    async with running(settings) as (found, session):
        reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
        try:
            yield found, Connection(reader, writer), session
        finally:
            writer.close()
            await writer.wait_closed()
            found.server.should_exit = True


@asynccontextmanager
async def full() -> AsyncIterator[tuple[Running, Connection]]:
    """Yield a server whose only place is taken, and a connection to it."""
    async with connected() as (found, connection, session):
        assert await found.status(session, RATE) == (200, None)  # it learns how long one takes
        found.engine.gate = asyncio.Event()
        first = asyncio.create_task(found.status(session, RATE))
        await found.engine.reached.wait()
        try:
            yield found, connection
        finally:
            found.engine.gate.set()
            assert (await first)[0] == 200


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


WAYS = {
    "at once": [head() + BODY],
    "head and body": [head(), BODY],
    "in parts": [head()[:30], head()[30:], BODY[:5], BODY[5:]],
    "chunked": [head(CHUNKED) + chunked(BODY)],
    "asks first": [head(f"{LENGTH}expect: 100-continue\r\n")],
    "closes": [head(f"{LENGTH}connection: close\r\n") + BODY],
    "HTTP/1.0": [head(version="1.0") + BODY],
    "with an offer": [head(f"{OFFER}{LENGTH}"), BODY],
    "with an offer, chunked": [head(f"{OFFER}{CHUNKED}") + chunked(BODY)],
    "with a query": [head(path=f"{RATE}?a=b") + BODY],
    "not in time": [head(f"{LENGTH}x-request-timeout-ms: 20000\r\n") + BODY],
}


CLOSES = ("closes", "HTTP/1.0")


SHORT = GatewaySettings(request_seconds=0.3, keep_alive_seconds=5)
"""Little time for a request to come."""
SLOW: dict[str, tuple[int | None, list[bytes]]] = {
    "nothing": (None, []),
    "a part of a head": (408, [head()[:30]]),
    "a head, byte by byte": (408, [bytes([byte]) for byte in head()]),
    "no body": (408, [head()]),
    "no chunked body": (408, [head(CHUNKED)]),
    "no body after it was asked for": (408, [head(f"{LENGTH}expect: 100-continue\r\n")]),
    "a part of a body": (408, [head(), BODY[:5]]),
    "a body, byte by byte": (408, [head(), *(bytes([byte]) for byte in BODY[:-1])]),
    "a chunked body without end": (408, [head(CHUNKED), b"5\r\n" + BODY[:5] + b"\r\n"]),
    "a part of a second head": (408, [head(method="GET", path="/healthz", lines=""), b"GET /"]),
}


@pytest.mark.parametrize("what", SLOW)
async def test_a_request_has_to_come_in_time(what: str) -> None:
    status, parts = SLOW[what]
    async with connected(SHORT) as (found, connection, session):
        sending = asyncio.create_task(connection.send(*parts))
        if what == "a part of a second head":
            assert (await connection.answer())[0] == 200
        if "asked for" in what:
            assert b" 100 " in await connection.reader.readuntil(b"\r\n\r\n")
        if status:
            start = time.monotonic()
            told, _, body = await connection.answer()
            assert time.monotonic() - start < 1.5
            assert (told, json.loads(body)["error"]["code"]) == (408, "request_timeout")
        else:
            assert await asyncio.wait_for(connection.reader.read(), 1) == b""
        sending.cancel()
        assert await found.status(session, RATE) == (200, None)


async def test_a_body_that_nobody_waits_for_ends_its_connection() -> None:
    async with connected(SHORT) as (_, connection, _):
        await connection.send(head(path="/nothing") + BODY[:5])
        assert (await connection.answer())[0] == 404
        assert await asyncio.wait_for(connection.reader.read(), 3) == b""


async def test_an_answer_takes_its_time() -> None:
    async with connected(SHORT) as (found, connection, _):
        found.engine.gate = asyncio.Event()
        await connection.send(head() + BODY)
        await asyncio.sleep(1)
        found.engine.gate.set()
        assert (await connection.answer())[0] == 200
        await asyncio.sleep(0.5)  # idle: keep_alive_seconds
        await connection.send(head() + BODY)
        assert (await connection.answer())[0] == 200
        found.engine.gate = asyncio.Event()
        await connection.send(head() + BODY + head()[:20])
        await asyncio.sleep(1)
        found.engine.gate.set()
        assert [(await connection.answer())[0] for _ in range(2)] == [200, 408]


async def test_who_does_not_read_is_left() -> None:
    async with connected(SHORT) as (found, connection, session):
        found.engine.content_type = "text/event-stream"
        found.engine.chunks = [b"data: " + b"a" * 2**20 + b"\n\n"] * 64
        asked = json.dumps({"model": "demo", "prompt": "a"}).encode()
        length = f"content-length: {len(asked)}\r\n"
        connection.reader._limit = 1  # type: ignore[attr-defined]  # it stops reading
        await connection.send(head(length, path="/v1/completions") + asked)
        await asyncio.sleep(1)
        counts = await asyncio.to_thread(scrape, found.url)
        places = counts["routine_in_flight_requests", (("pool", "completions"),)]
        assert places == 0, "its place is still taken"
        assert await found.status(session, RATE) == (200, None)


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_client"])
async def test_connections_have_a_limit(limit: str) -> None:
    settings = FULL.model_copy(update={limit: 3})
    async with connected(settings) as (found, connection, session):
        await connection.send(head() + BODY)  # the second: the session has one
        assert (await connection.answer())[0] == 200
        others = [await asyncio.open_connection("127.0.0.1", found.port) for _ in range(4)]
        for reader, _ in others[1:]:
            told = await asyncio.wait_for(reader.read(), 2)
            assert told.startswith(b"HTTP/1.1 429 ")
            assert b"too_many_connections" in told
        assert await found.status(session, RATE) == (200, None)
        for _, writer in others:
            writer.close()
        await asyncio.sleep(0.1)
        await connection.send(head() + BODY)
        assert (await connection.answer())[0] == 200
        async with aiohttp.ClientSession() as again, again.get(f"{found.url}/healthz") as answer:
            assert answer.status == 200


TOO_LONG = {
    "a URL": (414, [head(path=f"{RATE}?{'a' * 10_000}") + BODY]),
    "a URL of many queries": (414, [head(path=f"{RATE}?{'a=b&' * 3000}") + BODY]),
    "a header": (431, [head(f"{LENGTH}cookie: {'a' * 70_000}\r\n") + BODY]),
    "many headers": (431, [head(LENGTH + "".join(f"a{n}: b\r\n" for n in range(20_000))) + BODY]),
    "more headers than anyone sends": (431, [head(LENGTH + "a: b\r\n" * 101) + BODY]),
    "a URL without end": (414, [b"GET /", *[b"a" * 5000] * 2]),
    "a header without end": (431, [b"GET / HTTP/1.1\r\na: ", *[b"a" * 9000] * 8]),
    "headers without end": (431, [b"GET / HTTP/1.1\r\n", *[b"a: b\r\n" * 1500] * 8]),
}


@pytest.mark.parametrize("what", TOO_LONG)
async def test_a_head_has_a_limit_however_it_comes(what: str) -> None:
    status, parts = TOO_LONG[what]
    async with connected() as (found, connection, session):
        await connection.send(*parts)
        told, headers, body = await connection.answer()
        assert (told, headers["connection"]) == (status, "close")
        assert json.loads(body)["error"]["code"] == "head_too_large"
        assert await found.status(session, RATE) == (200, None)


@pytest.mark.parametrize("way", WAYS)
async def test_a_request_is_answered_however_it_is_sent(way: str) -> None:
    async with connected() as (found, connection, session):
        await connection.send(*WAYS[way])
        if way == "asks first":
            assert b" 100 " in await connection.reader.readuntil(b"\r\n\r\n")
            await connection.send(BODY)
        assert (await connection.answer())[0] == 200
        if way not in CLOSES:
            await connection.send(head() + BODY)  # the connection serves on
            assert (await connection.answer())[0] == 200
        assert await found.status(session, RATE) == (200, None)


NOT_HTTP = {
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "a header without a colon": b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    "an address that is none": b"GET http://[ HTTP/1.1\r\n\r\n",
    "a proxy's request": b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": head("content-length: 1\r\ncontent-length: 2\r\n"),
    "a length, and chunks": head(LENGTH + CHUNKED),
}


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://a", 200),
        ("http://a?b=c", 200),
        ("http://a/healthz", 200),
        ("http://a:1/healthz?b", 200),
        ("*", 404),
        ("http://a/nothing", 404),
        ("healthz", 400),
        ("?", 400),
    ],
)
async def test_a_target_may_be_a_whole_address(target: str, status: int) -> None:
    async with connected(GatewaySettings()) as (_, connection, _):
        await connection.send(
            head(method="OPTIONS" if target == "*" else "GET", path=target, lines="")
        )
        assert (await connection.answer())[0] == status


@pytest.mark.parametrize("sent", NOT_HTTP.values(), ids=NOT_HTTP)
async def test_what_is_not_http_gets_the_common_error(sent: bytes) -> None:
    async with connected() as (found, connection, session):
        await connection.send(sent)
        status, headers, body = await connection.answer()
        assert (status, headers["connection"]) == (400, "close")
        assert json.loads(body)["error"]["code"] == "invalid_http"
        assert await connection.reader.read() == b""
        assert await found.status(session, RATE) == (200, None)


HEALTH = head(method="GET", path="/healthz", lines="")
BROKEN = {
    "a second request": ([200, 400], [head() + BODY + b"junk\r\n\r\n"]),
    "a second request, later": ([200, 400], [head() + BODY, b"junk\r\n\r\n"]),
    "a fourth request": ([200, 200, 200, 400], [HEALTH + (head() + BODY) * 2 + b"junk\r\n\r\n"]),
    "a body": ([400], [head(CHUNKED) + b"5\r\n" + BODY[:5] + b"\r\nx\r\n"]),
    "a body, later": ([400], [head(CHUNKED), b"5\r\n" + BODY[:5] + b"\r\n", b"x\r\n"]),
    "a second body": ([200, 400], [head() + BODY + head(CHUNKED) + b"x\r\n"]),
    "a third body": ([200, 200, 400], [(head() + BODY) * 2 + head(CHUNKED), b"x\r\n"]),
    "a long second head": ([200, 431], [head() + BODY + head(f"a: {'b' * 70_000}\r\n")]),
    "after a close": ([200], [head(f"{LENGTH}connection: close\r\n") + BODY + b"junk\r\n\r\n"]),
}


@pytest.mark.parametrize(("statuses", "parts"), BROKEN.values(), ids=BROKEN)
async def test_what_is_broken_does_not_harm_what_came_before_it(
    statuses: list[int], parts: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    settings = GatewaySettings(keep_alive_seconds=1)
    async with connected(settings) as (found, connection, session):
        found.engine.gate = asyncio.Event()
        await connection.send(*parts)
        await asyncio.sleep(0.1)
        found.engine.gate.set()
        assert [(await connection.answer())[0] for _ in statuses] == statuses
        assert await asyncio.wait_for(connection.reader.read(), 5) == b""
        assert await found.status(session, RATE) == (200, None)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_who_leaves_within_a_body_is_not_answered() -> None:
    async with connected(GatewaySettings()) as (found, connection, session):
        asked = len(found.engine.calls)
        await connection.send(head(CHUNKED) + chunked(BODY)[:-5])  # all of it, but for its end
        await asyncio.sleep(0.05)
        connection.close()
        await asyncio.sleep(0.1)
        assert len(found.engine.calls) == asked
        assert await found.status(session, RATE) == (200, None)


async def test_who_leaves_leaves_all_their_requests(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(GatewaySettings()) as (found, connection, session):
        found.engine.gate = asyncio.Event()
        await connection.send((head() + BODY) * 3)
        await found.engine.reached.wait()
        asked = len(found.engine.calls)
        connection.close()
        await asyncio.sleep(0.1)
        counts = await asyncio.to_thread(scrape, found.url)
        assert counts["routine_in_flight_requests", (("pool", "tasks"),)] == 0
        found.engine.gate.set()
        assert await found.status(session, RATE) == (200, None)
        assert len(found.engine.calls) == asked + 1
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("way", WAYS)
async def test_a_refusal_is_the_same_however_the_request_is_sent(way: str) -> None:
    async with full() as (_, connection):
        await connection.send(*WAYS[way])
        if way == "asks first":
            assert b" 100 " in await connection.reader.readuntil(b"\r\n\r\n")
            await connection.send(BODY)
        status, headers, body = await connection.answer()
        assert status == 429
        assert json.loads(body)["error"]["code"] == "overloaded"
        assert json.loads(body)["error"]["message"].startswith("0 requests are waiting")
        assert 1 <= int(headers["retry-after"]) <= 2
        assert headers["content-type"] == "application/json"
        assert headers["date"]
        assert len(headers["x-request-id"]) == 32
        assert headers["traceparent"].endswith("-01")
        if way in CLOSES:
            assert await asyncio.wait_for(connection.reader.read(), 0.5) == b""


MISTAKES = {
    405: [head(method="PUT") + BODY],
    413: [head(f"content-length: {2**21}\r\n"), bytes(2**21)],
    422: [head(f"{LENGTH}x-request-timeout-ms: soon\r\n") + BODY],
    404: [head(path=f"{RATE}s") + BODY],
}


@pytest.mark.parametrize("status", MISTAKES)
async def test_a_mistake_is_told_before_anything_else(status: int) -> None:
    async with full() as (_, connection):
        await connection.send(*MISTAKES[status])
        assert (await connection.answer())[0] == status


async def test_a_refusal_does_not_reach_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    async with full() as (found, connection):
        monkeypatch.delattr(Exchange, "__init__")  # any request that does would fail
        ids = "x-request-id: mine\r\ntraceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-01\r\n"
        for _ in range(3):  # on one connection
            await connection.send(head(LENGTH + ids) + BODY)
            status, headers, _ = await connection.answer()
            assert status == 429
            assert headers["x-request-id"] == "mine"
            assert headers["traceparent"].startswith("00-aaa")
        monkeypatch.undo()
        counts = await asyncio.to_thread(scrape, found.url)
        answered = (("method", "POST"), ("route", RATE), ("status", "429"))
        assert counts["routine_http_request_duration_seconds_count", answered] == 3
        rejected = (("adapter", "rate"), ("outcome", "rejected"))
        assert counts["routine_admissions_total", rejected] == 3


async def test_answers_keep_the_order_of_their_requests() -> None:
    async with full() as (found, connection):
        await connection.send(head(method="GET", path="/healthz", lines="") + head() + BODY)
        assert [(await connection.answer())[0] for _ in range(2)] == [200, 429]
        await connection.send((head() + BODY) * 3 + head(method="GET", path="/healthz", lines=""))
        assert [(await connection.answer())[0] for _ in range(4)] == [429, 429, 429, 200]
        assert found.engine.gate
        found.engine.gate.set()
        await asyncio.sleep(0.1)
        await connection.send(head() + BODY)
        assert (await connection.answer())[0] == 200


async def test_a_refusal_does_not_cut_off_what_follows_it_in_the_same_data() -> None:
    async with full() as (_, connection):
        health = head(method="GET", path="/healthz", lines="")
        await connection.send(head() + BODY + health[:-2])
        assert (await connection.answer())[0] == 429
        await asyncio.sleep(1.5)  # longer than a connection may be idle
        await connection.send(health[-2:])
        assert (await connection.answer())[0] == 200


async def test_offers_without_end_are_declined_one_by_one() -> None:
    """Java's, many at once; and llhttp takes Proxy-Connection for Connection."""
    async with connected() as (_, connection, _):
        health = head(OFFER, method="GET", path="/healthz")
        await connection.send(health * 500)
        for _ in range(500):
            assert (await connection.answer())[0] == 200
        offer = "proxy-connection: Upgrade\r\nupgrade: x\r\n"
        await connection.send(head(offer, method="GET", path="/healthz"))
        assert (await connection.answer())[0] == 200


@pytest.mark.parametrize("path", [RATE, "/v1/completions"])
async def test_a_length_of_many_digits_is_read(path: str) -> None:
    async with connected() as (_, connection, _):
        zeros = "0" * 5000
        lines = f"content-length: {zeros}{len(BODY)}\r\n"
        await connection.send(head(lines, path=path) + BODY)
        assert (await connection.answer())[0] == (200 if path == RATE else 422)


async def test_a_bug_in_the_gate_is_not_the_caller_s_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connected() as (found, connection, session):
        monkeypatch.delattr(Generator, "is_free")
        await connection.send(head() + BODY)
        status, headers, body = await connection.answer()
        assert (status, headers["connection"]) == (500, "close")
        assert json.loads(body)["error"]["code"] == "internal_error"
        monkeypatch.undo()
        assert await found.status(session, RATE) == (200, None)


async def test_a_client_that_stays_idle_after_a_refusal_is_left() -> None:
    async with full() as (_, connection):
        await connection.send(head() + BODY)
        assert (await connection.answer())[0] == 429
        assert await asyncio.wait_for(connection.reader.read(), 5) == b""


async def test_while_it_stops_a_refusal_also_closes_its_connection() -> None:
    async with full() as (found, connection):
        found.server.handle_exit(2, None)
        await asyncio.sleep(0)
        await connection.send(head() + BODY)
        status, headers, _ = await connection.answer()
        assert (status, headers["connection"]) == (429, "close")
        assert found.engine.gate
        found.engine.gate.set()


async def test_an_ordinary_client_is_refused_too() -> None:
    async with (
        full() as (found, _),
        aiohttp.ClientSession(found.url) as session,
        session.post(RATE, json=GOOD) as response,
    ):
        assert response.status == 429
