"""The lock file: the base model, tokenizer, prompt and output each adapter was trained for.

``finetune.export`` writes it beside the adapters. ``serving.engine.preflight`` refuses to start if
anything differs.
"""

import hashlib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

LOCK_NAME = "lock.json"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""PEFT's names of an adapter's two files."""
BASE_FILES = ("config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json")
"""Base model files that are locked. Weights in pickles are not: reading them may run code."""
SIGNATURE_NAME = "lock.json.sig"
"""Ed25519 signature of the lock file, 64 bytes."""


class LockError(ValueError):
    """The lock file is missing or unreadable."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BaseEntry(_Entry):
    """The base model the adapters were trained on."""

    name: str
    """Model name in the API: the ``model`` field of ``/v1/completions``."""
    revision: str | None
    """Commit on the Hugging Face Hub; None for weights in a local folder."""
    files: dict[str, str]
    """SHA-256 by file name, for configuration, tokenizer and weights."""


class Scores(_Entry):
    """Results of ``make evaluate``, measured through vLLM on held-out requests."""

    requests: int
    valid: float
    """Share of the adapter's answers, to usual and odd lifters, that match the output's language
    and pass the check."""
    part: str
    """Scoring unit: whole answers, or days."""
    with_adapter: float
    """Share of parts in which every decision matches the coach's."""
    without_adapter: float
    """The same share for the base model."""
    odd: float
    """Share with the adapter for lifters whose lifts are unrelated (``odd.jsonl``)."""

    @property
    def least(self) -> float:
        """The lower of the adapter's two shares."""
        return min(self.with_adapter, self.odd)


class AdapterEntry(_Entry):
    """One LoRA adapter; its folder is named after the task."""

    files: dict[str, str]
    """SHA-256 by file name, for weights and configuration (rank, scaling, modules)."""
    prompt: str
    """``Task.prompt_fingerprint`` at training time."""
    output: str
    """``Task.output_fingerprint`` at training time."""
    scores: Scores | None = None
    golden: list[str] | None = None
    """What it decided for its task's examples and edges when it was scored."""


class Lock(_Entry):
    """Content of the lock file."""

    base: BaseEntry
    adapters: dict[str, AdapterEntry]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``folder/lock.json``.

        Raises:
            LockError: the file is missing or not a lock file.
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
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
