"""Export trained weights to the folder they are served from, and write the lock file.

``python -m finetune.export --base finetune/demo/base --name demo --adapters
finetune/runs/demo/adapters/rate --out finetune/demo`` copies the base and adapters and writes
``adapters/lock.json``. Adapters already in the output folder are kept if they are for the same
base. A base from the hub is not copied; its commit and file hashes are locked.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from finetune.record import RECORD, Record, RecordError, base_files, locate
from serving.adapter import AdapterError, check_files, linear_shapes
from serving.lock import (
    CONFIG,
    LOCK_NAME,
    WEIGHTS,
    AdapterEntry,
    BaseEntry,
    Lock,
    LockError,
    sha256,
)
from serving.tasks.registry import TASKS

SHOWN = "loss.png"
COPIED = ("generation_config.json", "tokenizer_config.json", SHOWN)
"""Other base files, copied if present."""


class ExportError(ValueError):
    """Something is missing, unfinished or does not belong together; the message names it."""


class Origin(NamedTuple):
    """What an adapter was trained for."""

    base: str
    """The base's name in the adapter's configuration."""
    files: dict[str, str]
    """SHA-256 by file name of the base."""
    prompt: str | None
    output: str | None


def origin_of(folder: Path) -> Origin:
    """Return what an adapter was trained for: as its training wrote, or the lock file that it was
    exported with.

    Raises:
        ExportError: its training has not finished, or its files are not those of the lock file.
        RecordError: there is neither.
        LockError: the lock file is unreadable.
    """
    if (folder.parent / LOCK_NAME).exists() and not (folder / RECORD).exists():
        lock = Lock.load(folder.parent)
        entry = lock.adapters.get(folder.name)
        if not entry or {file: sha256(folder / file) for file in entry.files} != entry.files:
            raise ExportError(f"{folder} is not what {folder.parent / LOCK_NAME} names")
        return Origin(lock.base.name, lock.base.files, entry.prompt, entry.output)
    record = _finished(folder)
    return Origin(str(record.recipe.get("model")), record.base, record.prompt, record.output)


def _finished(folder: Path) -> Record:
    record = Record.load(folder)
    if not record.is_finished:
        raise ExportError(f"{folder}: its training has not finished; run it again")
    return record


def check_adapter(folder: Path, base: BaseEntry, source: Path) -> None:
    """Check that an adapter is finished, of this base, and for today's prompt and output.

    Args:
        folder: the adapter's, named after its task.
        base: lock entry of the base that it is exported with.
        source: folder of that base.

    Raises:
        ExportError: it is not.
        RecordError: nothing says what it was trained for.
        AdapterError: vLLM could not serve it.
    """
    if folder.name not in TASKS:
        raise ExportError(f"{folder}: no task of that name; the registry has {list(TASKS)}")
    for file in (WEIGHTS, CONFIG, SHOWN):
        if not (folder / file).is_file():
            raise ExportError(f"{folder / file} is missing: train first")
    task, origin = TASKS[folder.name], origin_of(folder)
    check_files(folder, linear_shapes(source))
    other = [name for name, hashed in origin.files.items() if base.files.get(name) != hashed]
    if other or not origin.files:
        raise ExportError(
            f"{folder} was trained on another base ({origin.base}) than {source}"
            + (f": {other[0]} differs" if other else "")
        )
    named = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if named != origin.base:
        raise ExportError(
            f"{folder / CONFIG} names the base {named}, and the training {origin.base}"
        )
    if (origin.prompt, origin.output) != (task.prompt_fingerprint(), task.output_fingerprint()):
        raise ExportError(
            f"{folder} was trained for another prompt or output than serving/tasks has: train again"
        )


def base_entry(base: str, served_name: str) -> tuple[Path, BaseEntry]:
    """Return a base's folder and lock entry.

    Raises:
        ExportError: it has no model, or its training has not finished.
        RecordError: it is neither a folder nor in the Hugging Face cache.
    """
    source, revision = locate(base)
    files = base_files(source)
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise ExportError(f"{source} has no config.json or no weights as safetensors")
    if (source / RECORD).exists():
        _finished(source)
    return source, BaseEntry(name=served_name, revision=revision, files=files)


def name_base(folder: Path, base_name: str) -> dict[str, str]:
    """Write the base's name to an adapter's configuration; return its files' SHA-256 by name."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    return {file: sha256(folder / file) for file in (WEIGHTS, CONFIG)}


def _copy(source: Path, target: Path) -> None:
    if target.exists() and source.samefile(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def export(base: str, name: str, adapters: Path | None, out: Path) -> Lock:
    """Check and export a base and adapters; write and return the lock file. What is refused leaves
    ``out`` as it was.

    Args:
        base: a folder, or a name on the hub.
        name: model name of the base in the API.
        adapters: an adapter's folder, or a folder of several; None for no adapters.
        out: folder to write ``base`` and ``adapters`` to.

    Raises:
        ExportError: something is missing, unfinished or does not belong together.
        RecordError: there is no such base, or nothing says what an adapter was trained for.
        AdapterError: vLLM could not serve an adapter.
    """
    target, (source, entry) = out / "adapters", base_entry(base, name)
    candidates = [adapters, *sorted(adapters.glob("*"))] if adapters else []
    folders = [path for path in candidates if (path / WEIGHTS).exists()]
    if adapters and not folders:
        raise ExportError(f"{adapters} has no trained adapter")
    for folder in folders:
        check_adapter(folder, entry, source)
    if entry.revision is None:
        for file in [*entry.files, *(file for file in COPIED if (source / file).exists())]:
            _copy(source / file, out / "base" / file)
    exported = {}
    for folder in folders:
        for file in (WEIGHTS, CONFIG, SHOWN):
            _copy(folder / file, target / folder.name / file)
        task = TASKS[folder.name]
        exported[folder.name] = AdapterEntry(
            files=name_base(target / folder.name, name),
            prompt=task.prompt_fingerprint(),
            output=task.output_fingerprint(),
        )
    target.mkdir(parents=True, exist_ok=True)
    lock = Lock(base=entry, adapters={**_kept(target, entry), **exported})
    lock.save(target)
    return lock


def _kept(target: Path, base: BaseEntry) -> dict[str, AdapterEntry]:
    """Return the adapters already locked in ``target`` for the same base."""
    try:
        lock = Lock.load(target)
    except LockError:
        return {}
    return lock.adapters if lock.base == base else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--base", required=True, help="a folder, or a name on the hub")
    parser.add_argument("--name", required=True, help="what API clients call the base")
    parser.add_argument("--adapters", type=Path, help="an adapter's folder, or one with several")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        lock = export(arguments.base, arguments.name, arguments.adapters, arguments.out)
    except (ExportError, RecordError, AdapterError, LockError, OSError) as error:
        sys.exit(f"export: {error}")
    print(f"{arguments.out}: base {lock.base.name}, adapters {', '.join(lock.adapters)}")


if __name__ == "__main__":
    main()
