"""The lock file: which base, tokenizer, prompt and output each adapter was trained for.

``finetune.export`` writes it beside the adapters. ``serving.engine.preflight`` refuses to start on
anything else.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

LOCK_NAME = "lock.json"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""An adapter's two files, as PEFT names them."""
BASE_FILES = ("config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json", "*.bin")
"""Which of a base's files are locked."""


class LockError(ValueError):
    """The lock file is missing or cannot be read."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BaseEntry(_Entry):
    """The base model the adapters were trained on."""

    name: str
    """What API clients call it: the ``model`` field of ``/v1/completions``."""
    revision: str | None
    """Commit on the Hugging Face hub; None for weights that lie in a folder."""
    files: dict[str, str]
    """SHA-256 by file name: configuration, tokenizer and weights."""


class Scores(_Entry):
    """What ``make evaluate`` measured through vLLM on held-out requests."""

    requests: int
    valid: float
    """Share of the adapter's answers that are in the output's language and pass the check."""
    part: str
    """What is counted one by one: whole answers, or days."""
    with_adapter: float
    """Share of parts with every decision as the coach makes it."""
    without_adapter: float
    """The same, asked of the base."""


class AdapterEntry(_Entry):
    """One LoRA adapter; its folder bears the task's name."""

    files: dict[str, str]
    """SHA-256 by file name: weights and configuration (rank, scaling, modules)."""
    prompt: str
    """``Task.prompt_fingerprint`` at training time."""
    output: str
    """``Task.output_fingerprint`` at training time."""
    scores: Scores | None = None


class Lock(_Entry):
    """The whole file."""

    base: BaseEntry
    adapters: dict[str, AdapterEntry]

    @classmethod
    def load(cls, folder: Path) -> Lock:
        """Read ``folder/lock.json``.

        Raises:
            LockError: not there, or not a lock file.
        """
        path = folder / LOCK_NAME
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise LockError(
                f"{path} is missing. ADAPTERS must name a folder that finetune.export wrote"
            ) from error
        except (OSError, ValidationError) as error:
            raise LockError(f"{path} cannot be read: {error}") from error

    def save(self, folder: Path) -> None:
        """Write ``folder/lock.json``."""
        path = folder / LOCK_NAME
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
