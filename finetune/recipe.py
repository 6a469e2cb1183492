"""Training configuration, read from a YAML file in ``finetune/recipes``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class RecipeError(ValueError):
    """A recipe file is missing or invalid; the message names the file and the field."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class NewModel(_Section):
    """Architecture of a base model trained from scratch (GPT-NeoX)."""

    vocabulary: int
    """Vocabulary size of its own byte-level BPE tokenizer."""
    hidden: int
    layers: int
    heads: int
    context: int = 2048
    """Maximum sequence length in tokens."""


class Lora(_Section):
    """LoRA adapter configuration."""

    rank: int
    alpha: int
    dropout: float = 0.0
    target_modules: list[str] = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
    """Defaults to every linear layer of GPT-NeoX."""


class Recipe(_Section):
    """One training run. Exactly one of ``new_model`` and ``lora`` must be set."""

    train: list[Path]
    """JSON Lines files with ``task``, ``prompt``, ``completion`` and ``request`` (JSON text)."""
    validation: Path | None = None
    model: str | None = None
    """Base model of an adapter: a folder, or a name on the Hugging Face hub."""
    new_model: NewModel | None = None
    lora: Lora | None = None
    out: Path
    """Folder for the trained weights."""
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    """Rows of a step, on all devices together."""
    device_batch: int | None = Field(default=None, gt=0)
    """Rows of a pass on one device; by default all of a step's. A step's passes add up, so that
    fewer rows take less memory and train the same."""
    checkpointing: bool = False
    """Keep only each layer's input for the backward pass, and compute the rest of its activations
    again: much less memory for a third more computing."""
    learning_rate: float = Field(gt=0)
    warmup_steps: int = 50
    weight_decay: float = 0.0
    prompt_weight: float = 0.0
    """Loss weight of prompt tokens; 0 trains only on the completion."""
    decision_weight: float = 1.0
    """Loss weight of decided tokens; other completion tokens have weight 1."""
    tail_share: float = Field(default=1.0, ge=0, le=1)
    """Share of training rows that keep the text after the last decision; the rest are cut there.
    Serving derives that text, so most of an adapter's training need not be spent on it."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Precision of the forward and backward passes, and of an adapter's base. What is trained, and
    its optimizer state, stay fp32."""
    seed: int = 531
    report_to: str = "none"
    """A tracker beside ``log.json``, if its package is installed: tensorboard, mlflow, wandb ..."""

    @property
    def files(self) -> list[Path]:
        """The files of rows that it reads."""
        return [*self.train, *([self.validation] if self.validation else [])]

    @classmethod
    def load(cls, path: Path, changes: Iterable[str] = ()) -> Self:
        """Read a recipe from ``path``.

        Args:
            path: a YAML file.
            changes: fields to set, as ``steps=100`` or ``lora.rank=8``.

        Raises:
            RecipeError: no such file, not YAML, or a field is missing, unknown or out of range.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            for change in changes:
                _set(values, change)
            recipe = cls.model_validate(values)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, one['loc'])) or 'the recipe'}: {one['msg']}"
                for one in error.errors(include_url=False)
            ]
            raise RecipeError(f"{path}: {'; '.join(problems)}") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            words = " ".join(str(error).split())
            raise RecipeError(f"{path} cannot be read: {words}") from error
        if (recipe.new_model is None) == (recipe.lora is None):
            raise RecipeError(f"{path}: give exactly one of new_model and lora")
        if recipe.lora and not recipe.model:
            raise RecipeError(f"{path}: an adapter needs model, the base it is trained on")
        return recipe


def _set(values: Any, change: str) -> None:
    """Set a field, given as ``name=value`` or ``section.name=value`` with the value in YAML.

    Raises:
        RecipeError: it is not of that form.
    """
    name, equals, value = change.partition("=")
    *sections, last = name.split(".")
    for section in sections:
        values = values.setdefault(section, {}) if isinstance(values, dict) else None
    if not equals or not isinstance(values, dict):
        raise RecipeError(f"{change!r} sets no field of a recipe: write steps=100 or lora.rank=8")
    values[last] = yaml.safe_load(value)
