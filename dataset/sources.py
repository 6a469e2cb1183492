"""Dataset sources: ``SOURCE`` of ``dataset/coaches/<task>.py`` for each registered task."""

from __future__ import annotations

from importlib import import_module

from dataset.coaches import Source
from serving.tasks.registry import TASKS


def source_of(task: str) -> Source:
    """Return the source of a task's rows.

    Raises:
        ModuleNotFoundError: the task has no coach.
    """
    found = import_module(f"dataset.coaches.{task}").SOURCE
    assert isinstance(found, Source)
    return found


SOURCES = {name: source_of(name) for name in TASKS}
