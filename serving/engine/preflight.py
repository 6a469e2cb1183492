"""Startup checks that the base model, adapters and tasks are compatible.

Each failure raises one message that names the file and the fix. This module does not import torch.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from serving.adapter import AdapterError, Shapes, check_files, linear_shapes
from serving.engine.settings import EngineSettings
from serving.lock import (
    CONFIG,
    LOCK_NAME,
    SIGNATURE_NAME,
    WEIGHTS,
    AdapterEntry,
    BaseEntry,
    Lock,
    sha256,
)
from serving.tasks.registry import TASKS

BASE_PATTERNS = ("*.json", "*.safetensors")
"""Files of a base that vLLM reads; repositories may have the weights in other formats too."""
ADAPTER_PATTERNS = (f"{LOCK_NAME}*", *(f"*/{name}" for name in (CONFIG, WEIGHTS)))


class PreflightError(ValueError):
    """A file is missing or incompatible; the message says what to do."""


class NotFetched(PreflightError):
    """A file is on the hub, and could not be fetched."""


def locate_base(model: str, base: BaseEntry) -> Path:
    """Return the base model's folder: ``model`` itself, or its Hugging Face cache snapshot, into
    which the files that it lacks are fetched.

    Raises:
        PreflightError: the folder does not exist.
        NotFetched: a file is not cached and cannot be fetched.
    """
    path = Path(model)
    if (path / "config.json").is_file():
        return path
    if _looks_local(model):
        raise PreflightError(
            f"MODEL={model}: no config.json there. Name a folder with a Hugging Face model, "
            "or unset MODEL for the demo model"
        )
    found, why = _from_hub(model, base.revision, BASE_PATTERNS, base.files)
    if found:
        return found
    raise NotFetched(
        f"MODEL={model} is not in the Hugging Face cache and cannot be fetched ({why}). Connect "
        "once to fetch it, name a local folder, or unset MODEL and ADAPTERS for the demo model"
    )


def locate_adapters(adapters: str) -> Path:
    """Return the adapters' folder: ``adapters`` itself, or its Hugging Face cache snapshot.

    Args:
        adapters: a folder, or a repository's name on the hub, with ``@`` and a revision or without.

    Raises:
        NotFetched: they are not cached and cannot be fetched.
    """
    name, _, revision = adapters.partition("@")
    if (Path(adapters) / LOCK_NAME).is_file() or _looks_local(name):
        return Path(adapters)
    files = [LOCK_NAME, *(f"{task}/{file}" for task in TASKS for file in (CONFIG, WEIGHTS))]
    found, why = _from_hub(name, revision or None, ADAPTER_PATTERNS, files)
    if found:
        return found
    raise NotFetched(
        f"ADAPTERS={adapters} are not in the Hugging Face cache and cannot be fetched ({why}). "
        "Connect once to fetch them, or name a folder that finetune.export wrote"
    )


def _looks_local(name: str) -> bool:
    return Path(name).exists() or name.startswith((".", "/")) or name.count("/") != 1


def _from_hub(
    name: str, revision: str | None, patterns: Sequence[str], files: Collection[str]
) -> tuple[Path | None, str]:
    """Return the cache's snapshot of a repository, fetched as far as it lacks ``files``; None, and
    why, if they cannot be had. A branch may have moved on since it was cached; a revision has
    not."""
    why = ""
    for local_only in (True, False) if revision else (False, True):
        try:
            found = Path(
                snapshot_download(
                    name,
                    revision=revision,
                    allow_patterns=list(patterns),
                    local_files_only=local_only,
                )
            )
        except LocalEntryNotFoundError:
            continue
        except Exception as error:  # noqa: BLE001 (the hub's client has no error of its own for all)
            why = next(iter(str(error).splitlines()), "") or type(error).__name__
            continue
        if missing := [file for file in files if not (found / file).is_file()]:
            why = f"it has no {missing[0]}"
            continue
        return found, ""
    return None, why or "the hub cannot be reached"


def check_base(folder: Path, adapters: Path, lock: Lock) -> None:
    """Check that the adapters were trained on these base model files.

    Raises:
        PreflightError: a locked file is missing or differs.
    """
    for file in folder.glob("*.safetensors"):
        if file.name not in lock.base.files:
            raise PreflightError(f"{file} is not in the adapters' lock file, and would be loaded")
    for name, expected in lock.base.files.items():
        file = folder / name
        if not file.is_file():
            raise PreflightError(f"{file} is missing, and the adapters' lock file names it")
        if sha256(file) != expected:
            raise PreflightError(
                f"{file} is not the file that the adapters in {adapters} were trained on "
                f"(base {lock.base.name}): set MODEL and ADAPTERS to what belongs together, or "
                "train adapters for this base and run finetune.export"
            )


def check_signature(key: Path, adapters: Path) -> None:
    """Check that the lock file, which names all other files' hashes, is signed.

    Args:
        key: file with the public half of the Ed25519 key that signed it, as PEM.
        adapters: folder of the lock file.

    Raises:
        PreflightError: it is not, or the key cannot be read.
    """
    try:
        public = load_pem_public_key(key.read_bytes())
        if not isinstance(public, Ed25519PublicKey):
            raise ValueError("another kind")
    except OSError as error:
        raise PreflightError(f"LOCK_KEY={key}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PreflightError(f"LOCK_KEY={key}: no Ed25519 public key as PEM") from error
    signature, lock = adapters / SIGNATURE_NAME, adapters / LOCK_NAME
    try:
        public.verify(signature.read_bytes(), lock.read_bytes())
    except OSError as error:
        raise PreflightError(f"LOCK_KEY is set: {error.filename} cannot be read") from error
    except InvalidSignature as error:
        raise PreflightError(f"{signature} is no signature of {lock} by {key}") from error


def check_adapter(folder: Path, entry: AdapterEntry, shapes: Shapes) -> int:
    """Check an adapter against the lock file, the base model and the current prompt and output.

    Args:
        folder: adapter folder, named after its task.
        entry: the adapter's lock file entry.
        shapes: result of ``linear_shapes``.

    Returns:
        The adapter's rank.

    Raises:
        PreflightError: a file is missing or damaged, or shapes or fingerprints differ.
    """
    task = TASKS[folder.name]
    retrain = f"run `make demo-model`, or train and export the {task.name} adapter again"
    today = (task.prompt_fingerprint(), task.output_fingerprint())
    if (entry.prompt, entry.output) != today:
        raise PreflightError(
            f"{folder} was trained for another prompt or output than serving/tasks has: {retrain}"
        )
    for name, expected in entry.files.items():
        if not (folder / name).is_file() or sha256(folder / name) != expected:
            raise PreflightError(
                f"{folder / name} is missing or not the file in the lock file: {retrain}"
            )
    try:
        return check_files(folder, shapes)
    except AdapterError as error:
        raise PreflightError(f"{error}: {retrain}") from error


@dataclass(frozen=True)
class Checked:
    """A base model and adapters that passed the checks."""

    lock: Lock
    base: Path
    """Its folder."""
    adapters: Path
    """Folder with one subfolder per adapter."""
    rank: int
    """Largest adapter rank."""

    @property
    def hidden_size(self) -> int:
        """The base model's."""
        config = json.loads((self.base / "config.json").read_text(encoding="utf-8"))
        return int(config["hidden_size"])


def check_model(settings: EngineSettings) -> Checked:
    """Check the base model and adapters that ``settings`` name.

    Raises:
        LockError: the lock file is missing or unreadable.
        PreflightError: the first check that failed.
    """
    adapters = locate_adapters(settings.adapters)
    if settings.lock_key:
        check_signature(settings.lock_key, adapters)
    lock = Lock.load(adapters)
    base = locate_base(settings.model, lock.base)
    return Checked(lock, base, adapters, preflight(base, adapters, lock))


def preflight(base: Path, adapters: Path, lock: Lock) -> int:
    """Run all checks of the base model, adapters and tasks.

    Returns:
        The largest adapter rank.

    Raises:
        PreflightError: the first check that failed.
    """
    missing = [name for name in TASKS if name not in lock.adapters]
    if missing:
        raise PreflightError(f"{adapters}: no adapter for task {missing[0]}; train and export it")
    unknown = [name for name in lock.adapters if name not in TASKS]
    if unknown:
        raise PreflightError(f"{adapters}: adapter {unknown[0]} is not for a task in the registry")
    check_base(base, adapters, lock)
    try:
        shapes = linear_shapes(base)
    except AdapterError as error:
        raise PreflightError(str(error)) from error
    return max(
        check_adapter(adapters / name, entry, shapes) for name, entry in lock.adapters.items()
    )
