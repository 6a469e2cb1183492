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

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from serving.lock import (
    BASE_FILES,
    CONFIG,
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
    """Something to export is missing; the message names it."""


def export_base(base: str, served_name: str, out: Path) -> BaseEntry:
    """Copy a base folder to ``out/base``, or find the hub's commit; return the lock entry.

    Raises:
        ExportError: ``base`` is neither a folder nor cached, or contains no model.
    """
    source, revision = Path(base), None
    if not source.is_dir():
        try:
            source = Path(snapshot_download(base, local_files_only=True))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
            raise ExportError(
                f"{base} is neither a folder nor in the Hugging Face cache"
            ) from error
        revision = source.name
    files = base_files(source)
    if "config.json" not in files or not any(n.endswith((".safetensors", ".bin")) for n in files):
        raise ExportError(f"{source} has no config.json or no weights")
    if revision is None:
        for name in [*files, *(name for name in COPIED if (source / name).exists())]:
            _copy(source / name, out / "base" / name)
    return BaseEntry(name=served_name, revision=revision, files=files)


def export_adapter(folder: Path, base_name: str, out: Path) -> AdapterEntry:
    """Copy one adapter into ``out``; return the lock entry.

    Raises:
        ExportError: the folder is not named after a task, or a file is missing.
    """
    if folder.name not in TASKS:
        raise ExportError(f"{folder}: no task of that name; the registry has {list(TASKS)}")
    task, target = TASKS[folder.name], out / folder.name
    for file in (WEIGHTS, CONFIG, SHOWN):
        _copy(folder / file, target / file)
    return AdapterEntry(
        files=name_base(target, base_name),
        prompt=task.prompt_fingerprint(),
        output=task.output_fingerprint(),
    )


def base_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each base file that the lock file covers, by name."""
    names = sorted({path.name for pattern in BASE_FILES for path in folder.glob(pattern)})
    return {name: sha256(folder / name) for name in names}


def name_base(folder: Path, base_name: str) -> dict[str, str]:
    """Write the base's name to an adapter's configuration; return its files' SHA-256 by name."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    return {file: sha256(folder / file) for file in (WEIGHTS, CONFIG)}


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise ExportError(f"{source} is missing: train first")
    if target.exists() and source.samefile(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def export(base: str, name: str, adapters: Path | None, out: Path) -> Lock:
    """Export a base and adapters; write and return the lock file.

    Args:
        base: a folder, or a name on the hub.
        name: model name of the base in the API.
        adapters: an adapter's folder, or a folder of several; None for no adapters.
        out: folder to write ``base`` and ``adapters`` to.

    Raises:
        ExportError: something is missing.
    """
    target, entry = out / "adapters", export_base(base, name, out)
    candidates = [adapters, *sorted(adapters.glob("*"))] if adapters else []
    folders = [path for path in candidates if (path / WEIGHTS).exists()]
    if adapters and not folders:
        raise ExportError(f"{adapters} has no trained adapter")
    target.mkdir(parents=True, exist_ok=True)
    exported = {folder.name: export_adapter(folder, name, target) for folder in folders}
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
    except (ExportError, OSError) as error:
        sys.exit(f"export: {error}")
    print(f"{arguments.out}: base {lock.base.name}, adapters {', '.join(lock.adapters)}")


if __name__ == "__main__":
    main()
