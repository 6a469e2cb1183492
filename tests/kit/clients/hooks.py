"""What schemathesis has to be told: how JSON lines are sent."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def as_it_is(context: Any, value: Any) -> dict[str, Any]:
    return {"data": value if isinstance(value, bytes) else str(value).encode()}
