"""Limits on a body, as a server sends it."""

import pytest
from starlette.types import Message

from serving.gateway.errors import BodyTooLarge
from serving.gateway.exchange import Exchange
from serving.gateway.server import Drain
from serving.gateway.settings import GatewaySettings

LIMIT = GatewaySettings(max_body_bytes=4096)


class Server:
    """Sends a body of a million bytes, in parts; takes no answer."""

    def __init__(self) -> None:
        self.parts = 0

    async def receive(self) -> Message:
        self.parts += 1
        return {"type": "http.request", "body": b" " * 1000, "more_body": self.parts < 1000}

    async def send(self, message: Message) -> None:
        raise AssertionError(message)


@pytest.mark.parametrize(("length", "most_parts"), [(None, 5), (b"10", 5), (b"1000000", 0)])
async def test_a_body_that_is_too_long_is_refused_before_it_is_read(
    length: bytes | None, most_parts: int
) -> None:
    server = Server()
    headers = [(b"content-type", b"application/json")]
    headers += [(b"content-length", length)] if length else []
    exchange = Exchange({"headers": headers}, server.receive, server.send, LIMIT, Drain())
    with pytest.raises(BodyTooLarge):
        await exchange.body()
    assert server.parts <= most_parts
