"""``routine531 batch``: a file of requests to a file of answers, from where an earlier run stopped.

Answers have OpenAI's batch format. What the service is to blame for is asked again, and not
written: a file of answers has each line that is done, and nothing else.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from pydantic_core import from_json
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from serving.client.service import (
    BAD_REQUEST,
    BUSY,
    NO_ANSWER,
    TIMEOUT_SECONDS,
    Service,
    ended,
    message_of,
    pause_of,
    refused,
)

PART_LINES = 2000
"""Lines sent at once; the service takes up to 10,000."""
KIND = {"content-type": "application/x-ndjson"}
LINE_FIELDS = {"custom_id", "method", "url", "body"}
"""Those of OpenAI's batch format."""
LINE = b'{"custom_id":"%d","method":"POST","url":"/gen/routine/%s","body":%s}'
ANSWER_START = b'{"id":"batch_req_'


class Answer(NamedTuple):
    """A line of a file of answers."""

    custom_id: str
    status: int
    message: str
    """What is wrong, if anything is."""
    line: bytes

    @classmethod
    def read(cls, line: bytes) -> "Answer":
        """Read a line.

        Raises:
            ValueError: it is no answer.
        """
        try:
            found = from_json(line)
            response = found["response"]
            error = response["body"].get("error")
            message = error["message"] if isinstance(error, dict) else ""
            return cls(found["custom_id"], int(response["status_code"]), message, line)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("no answer of a batch") from error

    @property
    def is_final(self) -> bool:
        """Whether to ask again would change nothing."""
        return self.status not in BUSY and self.status < httpx.codes.INTERNAL_SERVER_ERROR


def batch_of(service: Service, task: str, source: Path, target: Path) -> None:
    """Write the answers to the requests in ``source`` that ``target`` does not have; end the
    program if the service has none, or if a request is at fault."""
    asked = _requests(source, task)
    answered = {answer.custom_id: answer.status for answer in _answers(target)}
    rest = {name: line for name, line in asked.items() if name not in answered}
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with (
        target.open("ab") as out,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task(task, total=len(asked), completed=len(asked) - len(rest))
        for answer in _ask(service, task, rest):
            out.write(answer.line + b"\n")
            out.flush()
            answered[answer.custom_id] = answer.status
            progress.advance(bar)
    at_fault = sum(answered[name] != httpx.codes.OK for name in asked)
    sys.stderr.write(f"routine531: {len(asked) - at_fault} answered, {at_fault} at fault\n")
    if at_fault:
        raise ended(f"{target} says what is wrong with them", BAD_REQUEST)


def _requests(source: Path, task: str) -> dict[str, bytes]:
    """Return the requests in ``source`` as lines of OpenAI's batch format, by custom id."""
    found: dict[str, bytes] = {}
    for number, line in _lines(_read(source)):
        place = f"{source}, line {number}"
        fields = _fields(line)
        if fields is None:
            raise ended(f"{place} is no JSON object", BAD_REQUEST)
        is_openai = bool(fields.keys() & LINE_FIELDS)
        name = fields.get("custom_id") if is_openai else str(number)
        if not isinstance(name, str):
            raise ended(f"{place}: custom_id must be a text", BAD_REQUEST)
        if name in found:
            raise ended(f"{place}: an earlier line has custom_id {name!r} too", BAD_REQUEST)
        found[name] = line if is_openai else LINE % (number, task.encode(), line)
    if not found:
        raise ended(f"{source} has no lines; write a request as JSON in each", BAD_REQUEST)
    return found


def _answers(target: Path) -> list[Answer]:
    """Return the answers in ``target``; none if there is no such file. One that was not written to
    its end is cut off the file."""
    if not target.exists():
        return []
    written = _read(target)
    whole = written[: written.rfind(b"\n") + 1]
    rest, found = written[len(whole) :], []
    for number, line in _lines(whole):
        try:
            found.append(Answer.read(line))
        except ValueError:
            raise ended(
                f"{target}, line {number} is no answer of a batch; name another file", BAD_REQUEST
            ) from None
    if not rest.startswith(ANSWER_START[: len(rest)]):
        raise ended(f"{target} is no file of a batch's answers; name another", BAD_REQUEST)
    os.truncate(target, len(whole))
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ended(f"{path}: {error.strerror}", BAD_REQUEST) from error


def _lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers."""
    for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, line.strip()


def _fields(line: bytes) -> dict[str, Any] | None:
    try:
        found = from_json(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _ask(service: Service, task: str, rest: dict[str, bytes]) -> Iterator[Answer]:
    """Yield the final answers to ``rest``, which loses what was answered. The service has its time
    to be busy or away since it last answered."""
    patience = time.monotonic() + service.wait
    while rest:
        pause, reason = 0.0, ""
        try:
            for answer in _ask_once(service, task, list(rest.values())[:PART_LINES]):
                if not answer.is_final:
                    pause, reason = 1.0, answer.message
                    continue
                if answer.custom_id not in rest:
                    raise ended(f"{service.url} answers what was not asked", NO_ANSWER)
                del rest[answer.custom_id]
                patience = time.monotonic() + service.wait
                yield answer
        except _Busy as busy:
            pause, reason = busy.pause, busy.reason
        except httpx.HTTPError as error:
            pause, reason = 1.0, f"{service.url} cannot be reached: {error}"
        if pause and time.monotonic() + pause > patience:
            raise ended(f"{reason}; {len(rest)} lines are left: run it again", NO_ANSWER)
        time.sleep(pause)


class _Busy(Exception):
    def __init__(self, pause: float, reason: str) -> None:
        super().__init__(reason)
        self.pause, self.reason = pause, reason


def _ask_once(service: Service, task: str, lines: list[bytes]) -> Iterator[Answer]:
    """Yield the answers to ``lines`` as they come.

    Raises:
        _Busy: the service wants to be asked later.
        httpx.HTTPError: it cannot be reached, or the answer broke off.
    """
    with httpx.stream(
        "POST",
        service.route(f"{task}/batch"),
        content=b"\n".join(lines),
        headers={**service.headers, **KIND},
        timeout=TIMEOUT_SECONDS,
    ) as response:
        if response.status_code in BUSY:
            response.read()
            raise _Busy(pause_of(response), message_of(response))
        if not response.is_success:
            response.read()
            raise refused(response)
        for line in response.iter_lines():
            try:
                yield Answer.read(line.encode())
            except ValueError as error:
                raise ended(f"{service.url} answers with {line[:80]!r}", NO_ANSWER) from error
