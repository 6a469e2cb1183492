"""A row is written only if it says what the contract and the coach say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from serving.contract.tasks import TASKS


class RowError(ValueError):
    """A dataset row is wrong: the message names the rule and shows the row."""


def validate_row(
    row: Mapping[str, Any], coached: Mapping[str, int], is_coached: bool
) -> dict[str, Any]:
    """Check one row against the contract and, for labelled rows, against the coach's rates.

    Returns:
        The decided values in the row's completion.

    Raises:
        RowError: prompt, completion or label is not what it must be.
    """
    task = TASKS[row["task"]]
    request = task.request.model_validate(row["request"])
    output = task.output(request)
    values = output.parse(row["completion"])
    broken = task.check(request, json.loads(row["completion"]))
    if row["prompt"] != task.prompt(request):
        broken.append("prompt")
    if is_coached and values != dict(coached):
        broken.append("label")
    if broken:
        raise RowError(f"rules {broken} broken by {json.dumps(row, ensure_ascii=False)}")
    return values
