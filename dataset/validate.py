"""A row is written only if it says what the contract and the coach say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dataset.sources import Source


class RowError(ValueError):
    """A dataset row is wrong: the message names the rule and shows the row."""


def validate_row(row: Mapping[str, Any], source: Source, is_coached: bool) -> dict[str, Any]:
    """Check one row, as written, against the contract and, where it is labelled, the coach.

    Returns:
        The decided values in the row's completion.

    Raises:
        RowError: prompt, completion or label is not what it must be.
    """
    task = source.task
    request = task.request.model_validate_json(row["request"])
    values = task.output(request).parse(row["completion"])
    broken = task.check(request, json.loads(task.render(request, values)))
    if row["prompt"] != task.prompt(request):
        broken.append("prompt")
    if is_coached and values != source.coach(request):
        broken.append("label")
    if broken:
        raise RowError(f"rules {broken} broken by {json.dumps(row, ensure_ascii=False)}")
    return values
