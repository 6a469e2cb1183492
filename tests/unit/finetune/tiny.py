"""Recipes for runs that take seconds."""

from pathlib import Path

from finetune.recipe import Recipe


def recipe(**fields: object) -> Recipe:
    values: dict[str, object] = {
        "train": [Path("x")],
        "out": Path("x"),
        "steps": 1,
        "batch": 4,
        "learning_rate": 1e-3,
        "prompt_weight": 0.0,
        "decision_weight": 20.0,
    }
    return Recipe.model_validate(values | fields)
