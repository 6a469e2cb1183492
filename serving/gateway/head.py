"""What the gateway reads of a request's headers."""

import random
import re
import time
from collections.abc import Mapping, Sequence

from serving.gateway.deadline import TIMEOUT, Deadline
from serving.gateway.errors import InvalidRequest

_MILLISECONDS = re.compile(rb"[0-9]{1,9}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
"""W3C Trace Context, level 1, section 3.2."""
SHORT_BYTES = 2**16
"""A body that uvicorn reads by itself (uvicorn/protocols/http/flow_control.py)."""

DISCARD_BYTES, DISCARD_SECONDS = 2**25, 2.0
"""How much of a refused request is read. A connection that closes with unread data is reset, and
its client does not see the response."""


class Head:
    """A request's headers, and when they came.

    Args:
        headers: ASGI headers; of several of one name the first counts.
    """

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._came_at = time.monotonic()
        self._given: dict[bytes, bytes] = dict(reversed(headers))

    def __contains__(self, name: bytes) -> bool:
        return name in self._given

    def get(self, name: bytes) -> bytes:
        """Return a header's value; empty if it is missing."""
        return self._given.get(name, b"")

    @property
    def content_type(self) -> bytes:
        """The media type without parameters; empty if it is missing."""
        return self.get(b"content-type").partition(b";")[0].strip().lower()

    @property
    def content_encoding(self) -> bytes:
        """How the body is compressed; empty if it is not."""
        given = self.get(b"content-encoding").strip().lower()
        return b"" if given == b"identity" else given

    @property
    def length(self) -> int:
        """Length of the body in bytes, as the client says; 0 if it does not."""
        told = self.get(b"content-length")
        return int(told.lstrip(b"0") or 0) if told.isdigit() else 0

    def ids(self) -> dict[str, str]:
        """Return the client's ids if well formed: ``x-request-id``, else a new one, and
        ``traceparent``, else none."""
        ids = {"x-request-id": self.get(b"x-request-id").decode("latin-1")}
        if not _REQUEST_ID.fullmatch(ids["x-request-id"]):
            ids["x-request-id"] = _random_hex(16)
        traceparent = self.get(b"traceparent").decode("latin-1")
        if _TRACEPARENT.fullmatch(traceparent):
            ids["traceparent"] = traceparent
        return ids

    def deadline(self, seconds: float) -> Deadline:
        """Return the request's deadline: the caller's, or ``seconds`` after its head came if that
        is earlier.

        Raises:
            InvalidRequest: the caller's is not a number of milliseconds.
        """
        given = self._given.get(TIMEOUT.encode())
        if given is None:
            return Deadline(self._came_at + seconds)
        if not _MILLISECONDS.fullmatch(given):
            shown = repr(given[:80].decode("latin-1"))
            raise InvalidRequest(f"{TIMEOUT} is {shown}; send milliseconds, such as 2000", TIMEOUT)
        own = int(given) / 1000
        return Deadline(self._came_at + min(own, seconds), is_callers=own < seconds)


def with_trace(ids: Mapping[str, str]) -> dict[str, str]:
    """Return ``ids`` with the ``traceparent`` of a new trace if they have none."""
    return {"traceparent": f"00-{_random_hex(16)}-{_random_hex(8)}-01", **ids}


def log_fields(ids: Mapping[str, str]) -> dict[str, str]:
    """Return a request's ids as fields of its log records."""
    return {"request_id": ids["x-request-id"], "trace_id": ids["traceparent"].split("-")[1]}


def _random_hex(size: int) -> str:
    """``size`` random bytes as hex; not security-sensitive."""
    return f"{random.getrandbits(8 * size):0{2 * size}x}"
