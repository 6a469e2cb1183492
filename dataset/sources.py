"""What the dataset is made of: for each task of the registry, ``SOURCE`` of
``dataset/coaches/<task>.py``."""

from __future__ import annotations

from importlib import import_module

from dataset.coaches import Source
from serving.tasks.registry import TASKS


def source_of(task: str) -> Source:
    """Where a task's rows come from.

    Raises:
        ModuleNotFoundError: it has no coach.
    """
    found = import_module(f"dataset.coaches.{task}").SOURCE
    assert isinstance(found, Source)
    return found


SOURCES = {name: source_of(name) for name in TASKS}
