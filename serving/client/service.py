"""How the client asks a service: addresses, keys, waiting, and how the program ends."""

import sys
import time
from dataclasses import dataclass
from typing import Any

import httpx
import typer

BAD_REQUEST, NO_ANSWER = 2, 3
BUSY = (429, 503)
TIMEOUT_SECONDS = 120
"""Longer than the service takes to say that it has no answer."""


@dataclass(frozen=True)
class Service:
    """The service that is asked; how, is told before the command."""

    url: str
    key: str | None
    wait: float
    """Seconds to try again as long as it is busy."""

    def ask(self, route: str, body: dict[str, Any], accept: str = "application/json") -> str:
        """Return the answer; end the program if there is none."""
        deadline, headers = time.monotonic() + self.wait, {**self.headers, "accept": accept}
        while True:
            try:
                response = httpx.post(
                    self.route(route), json=body, headers=headers, timeout=TIMEOUT_SECONDS
                )
            except httpx.HTTPError as error:
                raise ended(f"{self.url} cannot be reached: {error}", NO_ANSWER) from error
            pause = pause_of(response)
            if response.status_code not in BUSY or time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
        if response.is_success:
            return response.text
        raise refused(response)

    @property
    def headers(self) -> dict[str, str]:
        """What identifies the caller."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    def route(self, path: str) -> str:
        """Return the address of a route."""
        return f"{self.url.rstrip('/')}/gen/routine/{path}"


def pause_of(response: httpx.Response) -> float:
    """Return the seconds after which a busy service wants to be asked again."""
    return float(response.headers.get("retry-after", 1))


def message_of(response: httpx.Response) -> str:
    """Return what a response that is no answer says."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.reason_phrase}"


def refused(response: httpx.Response) -> typer.Exit:
    """Return what ends the program, with a response that is no answer."""
    is_ours = response.is_client_error and response.status_code not in BUSY
    return ended(message_of(response), BAD_REQUEST if is_ours else NO_ANSWER)


def ended(message: str, code: int) -> typer.Exit:
    """Return what ends the program, with a message."""
    sys.stderr.write(f"routine531: {message}\n")
    return typer.Exit(code)
