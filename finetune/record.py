"""What a training was of: written beside the weights when it starts, compared by ``export``.

A folder whose training has not ended holds no weights, or those of an earlier one.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.recipe import Recipe
from serving.lock import BASE_FILES, sha256
from serving.tasks.registry import TASKS

RECORD = "training.json"
PACKAGES = ("torch", "transformers", "peft")


class RecordError(ValueError):
    """A training's base or record is missing or unreadable; the message names it."""


class Record(BaseModel):
    """A training, as its folder's ``training.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    recipe: dict[str, Any]
    """The recipe, as JSON."""
    data: dict[str, str]
    """SHA-256 by path of the files that it reads."""
    base: dict[str, str]
    """SHA-256 by file name of the base that an adapter was trained on; empty for a new base."""
    prompt: str | None
    """``Task.prompt_fingerprint`` of the task that an adapter is for."""
    output: str | None
    """``Task.output_fingerprint``."""
    versions: dict[str, str]
    """By package."""
    is_finished: bool = False
    """Whether the weights beside it are this training's."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``folder/training.json``.

        Raises:
            RecordError: it is missing or no record.
        """
        path = folder / RECORD
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise RecordError(
                f"{path} is missing: train again with finetune.train, or name a folder that "
                "finetune.export wrote"
            ) from error
        except ValidationError as error:
            raise RecordError(f"{path} is no record of a training: train again") from error

    def is_in(self, folder: Path) -> bool:
        """Return whether ``folder`` records this training, and as far as this record does."""
        try:
            return Record.load(folder) == self
        except RecordError:
            return False

    def save(self, folder: Path) -> None:
        """Write ``folder/training.json``, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{RECORD}.part"
        part.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        part.replace(folder / RECORD)


def record_of(recipe: Recipe) -> Record:
    """Return the record of a training that starts now.

    Raises:
        RecordError: there is no such base.
    """
    task = TASKS.get(recipe.out.name) if recipe.model else None
    return Record(
        recipe=recipe.model_dump(mode="json"),
        data={str(path): sha256(path) for path in recipe.files},
        base=base_files(locate(recipe.model)[0]) if recipe.model else {},
        prompt=task and task.prompt_fingerprint(),
        output=task and task.output_fingerprint(),
        versions={package: version(package) for package in PACKAGES},
    )


def locate(base: str) -> tuple[Path, str | None]:
    """Return a base's folder and, of one from the hub, its commit.

    Args:
        base: a folder, or a name on the hub.

    Raises:
        RecordError: it is neither a folder nor in the Hugging Face cache.
    """
    folder = Path(base)
    if folder.is_dir():
        return folder, None
    try:
        folder = Path(snapshot_download(base, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise RecordError(f"{base} is neither a folder nor in the Hugging Face cache") from error
    return folder, folder.name


def base_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each base file that the lock file covers, by name."""
    names = sorted({path.name for pattern in BASE_FILES for path in folder.glob(pattern)})
    return {name: sha256(folder / name) for name in names}
