"""Validation of dataset rows against the contract and the coach before they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dataset.sources import SOURCES
from serving.tasks.registry import TASKS


class RowError(ValueError):
    """A dataset row is invalid or cannot be generated; the message says which."""


def validate_row(row: Mapping[str, Any], is_coached: bool) -> dict[str, Any]:
    """Check one row, as written, against the contract and, if labelled, against the coach.

    Returns:
        The decided values in the row's completion.

    Raises:
        RowError: the prompt, completion or label is wrong.
    """
    task = TASKS[row["task"]]
    request = task.request.model_validate_json(row["request"])
    values = task.question(request).output.parse(row["completion"])
    broken = task.check(request, json.loads(task.render(request, values)))
    if row["prompt"] != task.question(request).prompt:
        broken.append("prompt")
    if is_coached and values != SOURCES[task.name].coach(request):
        broken.append("label")
    if broken:
        raise RowError(f"rules {broken} broken by {json.dumps(row, ensure_ascii=False)}")
    return values
