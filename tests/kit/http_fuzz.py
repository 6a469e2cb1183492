"""Broken HTTP: requests that h11 makes, mutated byte by byte and sent in pieces, and what no answer
to them may be."""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import h11

from tests.kit.bad_requests import CASES, ROUTES, good
from tests.kit.hostile import SCHEMAS

AT_ONCE = 64
HANG_SECONDS = 8.0
IDLE_SECONDS = 0.03
"""Silence after an answer, after which no other is expected."""
FINE = {100, 200, 400, 401, 403, 404, 405, 406, 408, 413, 414, 415, 422, 429, 431}
TIMEOUT = b"x-request-timeout-ms"
"""With it, 504 is an answer too."""

_JSON = [("content-type", "application/json")]
_LINES = [("content-type", "application/x-ndjson")]
_COMPLETION = {"model": "demo", "prompt": "a", "max_tokens": 2}
_MESSAGE = {"role": "user", "content": json.dumps(good("rate"))}
_CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
_PATHS = ["/", "/docs", "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/rate", "/mcp"]
_PATHS += ["/openapi.json", "/static/page.js", "/static/../settings.py", "/static/%2e%2e/app.py"]
_PATHS += ["//", "/v1/completions", "/gen/routine/rate", "/nothing", "*", "http://a/healthz"]
_METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PRI"]
_HEADERS = [
    b"transfer-encoding: chunked", b"transfer-encoding: gzip, chunked", b"content-length: 0",
    b"content-length: 18446744073709551616", b"content-length: -1", b"content-length: 5, 5",
    b"content-length: +5", b"expect: 100-continue", b"expect: nothing", b"connection: close",
    b"connection: keep-alive, upgrade\r\nupgrade: websocket", b"upgrade: h2c", b"host: a.b",
    b"host:", b"authorization: Bearer \xff", b"x-request-id: " + b"a" * 200, b"accept: ;;q=,*/*",
    b"accept: text/markdown", b"content-type: text/plain", b"content-encoding: gzip",
    TIMEOUT + b": 1", TIMEOUT + b": -1", TIMEOUT + b": 1e9", b" folded", b"\x00: a", b"a : b",
    b"traceparent: 00-0-0-0", b"a" * 5000 + b": b", b"a: " + b"b" * 70_000, b"trailer: a",
    b"transfer-encoding:\tchunked", b"content_length: 3", b"range: bytes=0-1", b"te: trailers",
]  # fmt: skip


def _bodies() -> list[tuple[str, list[tuple[str, str]], bytes]]:
    """Return paths, headers and bodies that are read, good and bad."""
    found = [(f"/gen/routine/{route}", _JSON, json.dumps(good(route)).encode()) for route in ROUTES]
    found += [("/gen/routine/rate/batch", _LINES, json.dumps(good("rate")).encode() + b"\n{}\n")]
    found += [("/v1/completions", _JSON, json.dumps(_COMPLETION).encode())]
    found += [("/v1/completions", _JSON, json.dumps({**_COMPLETION, "stream": True}).encode())]
    chat = {"model": "rate", "messages": [_MESSAGE]}
    found += [("/v1/chat/completions", _JSON, json.dumps(chat).encode())]
    accept = [*_JSON, ("accept", "application/json, text/event-stream")]
    found += [("/mcp", accept, json.dumps(_CALL).encode())]
    found += [
        (f"/gen/routine/{task}", [("content-type", case.content_type)], case.body)
        for task, case in CASES
        if case.content_type
    ]
    for schema in SCHEMAS.values():
        asked = {**_COMPLETION, "structured_outputs": {"json": schema}}
        with suppress(RecursionError):
            found.append(("/v1/completions", _JSON, json.dumps(asked).encode()))
    return found


BODIES = _bodies()


def request(rng: random.Random) -> bytes:
    """Return a request as h11 writes it."""
    if rng.random() < 0.3:
        path, headers, body = rng.choice(_PATHS), list[tuple[str, str]](), b""
    else:
        path, headers, body = rng.choice(BODIES)
    method = rng.choice(_METHODS) if rng.random() < 0.1 else "POST" if body else "GET"
    is_chunked = rng.random() < 0.3
    length = ("transfer-encoding", "chunked") if is_chunked else ("content-length", str(len(body)))
    client = h11.Connection(h11.CLIENT)
    head = h11.Request(
        method=method, target=path, headers=[("host", "localhost"), *headers, length]
    )
    parts = [client.send(head)]
    rest = body
    while rest:
        size = rng.randint(1, len(rest)) if is_chunked else len(rest)
        parts.append(client.send(h11.Data(data=rest[:size])))
        rest = rest[size:]
    parts.append(client.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)


def _place(data: bytes, rng: random.Random) -> int:
    """Return a place in ``data``, more often in its head."""
    head = data.find(b"\r\n\r\n") if rng.random() < 0.7 else -1
    return rng.randrange((head if head > 0 else len(data)) + 1)


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = min(_place(data, rng), len(data) - 1)
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    junk = rng.choice(
        [rng.randbytes(rng.randint(1, 20)), b"\r\n", b"\n", b"\x00", b" ", b":", b'"']
    )
    return data[:at] + junk + data[at:]


def _cut(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.randint(1, 30) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at : at + rng.randint(1, 60)] * rng.randint(2, 5) + data[at:]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _add_header(data: bytes, rng: random.Random) -> bytes:
    line, end, rest = data.partition(b"\r\n")
    return line + end + rng.choice(_HEADERS) + b"\r\n" + rest


def _other_ends(data: bytes, rng: random.Random) -> bytes:
    return data.replace(b"\r\n", rng.choice([b"\n", b"\r", b"\r\r\n", b"\n\r"]), rng.randint(1, 9))


def _other_version(data: bytes, rng: random.Random) -> bytes:
    other = rng.choice(
        [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/9.9", b"http/1.1", b"HTTPS/1.1"]
    )
    return data.replace(b"HTTP/1.1", other, 1)


def _numbers(data: bytes, rng: random.Random) -> bytes:
    """Put another number in the place of one."""
    found = list(re.finditer(rb"\d+", data))
    if not found:
        return data
    one = rng.choice(found)
    other = rng.choice([b"0", b"-1", b"9" * 30, b"1e999", b"0x10", b"NaN", b"00", b"1_000"])
    return data[: one.start()] + other + data[one.end() :]


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    _flip, _insert, _cut, _repeat, _truncate, _add_header, _other_ends, _other_version, _numbers,
]  # fmt: skip


def pieces(seed: str) -> list[bytes]:
    """Return what a connection sends: one to three requests, mutated, in one to five pieces."""
    rng = random.Random(seed)
    data = b"".join(request(rng) for _ in range(rng.choice([1, 1, 1, 2, 3])))
    for _ in range(rng.choice([0, 1, 1, 2, 3, 4])):
        data = rng.choice(MUTATIONS)(data, rng) or b"\r\n"
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 1, 4])))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if b > a]


def faults(sent: bytes, got: bytes) -> list[str]:
    """Return what is wrong with the answers ``got``."""
    rest = got
    while rest:
        head, end, rest = rest.partition(b"\r\n\r\n")
        if not end:
            return [f"a part of a head: {head[:200]!r}"]
        line, *fields = head.split(b"\r\n")
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", line)
        if not found:
            return [f"no status line: {head[:200]!r}"]
        status = int(found[1])
        if status == 100:
            continue
        if status not in FINE and not (status == 504 and TIMEOUT in sent.lower()):
            return [f"status {status}: {rest[:300]!r}"]
        headers = dict(field.lower().split(b": ", 1) for field in fields)
        length = headers.get(b"content-length")
        if length is None:  # a stream or a batch, to its end or to where it broke off
            body, rest = rest, b""
        elif b"HEAD" in sent and (not rest or rest.startswith(b"HTTP/1.1 ")):
            continue
        else:
            body, rest = rest[: int(length)], rest[int(length) :]
            if len(body) < int(length):
                return [f"{len(body)} of {int(length)} bytes of an answer {status}"]
        if status >= 400 and body:
            with suppress(ValueError, KeyError, TypeError):
                error = json.loads(body)["error"]
                if set(error) == {"message", "type", "param", "code"}:
                    if len(error["message"]) > 1000:
                        return [f"a message of {len(error['message'])} characters"]
                    continue
                if "jsonrpc" in json.loads(body):  # /mcp has errors of its own
                    continue
            return [f"status {status} with {body[:300]!r}"]
    return []


async def send(host: str, port: int, seed: str) -> tuple[list[str], list[int]]:
    """Send one case; return what is wrong with its answers, and their statuses."""
    parts, got = pieces(seed), bytearray()
    sent = b"".join(parts)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(HANG_SECONDS):
            try:
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    if len(parts) > 1:
                        await asyncio.sleep(0.001)
                while True:
                    is_whole = got and not faults(sent, bytes(got))
                    patience = IDLE_SECONDS if is_whole else HANG_SECONDS
                    part = await asyncio.wait_for(reader.read(2**16), patience)
                    if not part:
                        break
                    got += part
            except ConnectionError:  # more was sent than an answer that closes it leaves room for
                return [], _statuses(got)
    except TimeoutError:
        if not got:
            return ["neither an answer nor an end"], []
    finally:
        writer.close()
    return faults(sent, bytes(got)), _statuses(got)


def _statuses(got: bytes | bytearray) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]


async def fuzz(url: str, cases: int, seed: str) -> tuple[dict[str, list[str]], Counter[int]]:
    """Send ``cases`` to a service.

    Returns:
        What is wrong, by the case's seed, and how often each status came.
    """
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    numbers, wrong, statuses = iter(range(cases)), dict[str, list[str]](), Counter[int]()

    async def work() -> None:
        for number in numbers:
            name = f"{seed} {number}"
            found, told = await send(host, port, name)
            statuses.update(told)
            if found:
                wrong[name] = found

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return wrong, statuses
