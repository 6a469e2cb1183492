"""Put trained weights where they are served from, and lock what belongs together.

``python -m finetune.export --base finetune/runs/demo/base --name demo --adapters
finetune/runs/demo/adapters --out finetune/demo`` copies base and adapters and writes
``adapters/lock.json``. A base that comes from the hub is not copied; its commit is locked.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from serving.contract.lock import WEIGHTS, AdapterEntry, BaseEntry, Lock, sha256
from serving.contract.tasks import TASKS

LOCKED = ("config.json", "tokenizer.json")
"""Files that are locked for every base; for a folder its weights are too."""
BASE_WEIGHTS = "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
SHOWN = "loss.png"


class ExportError(ValueError):
    """Something to export is missing: the message names it."""


def export_base(base: str, name: str, out: Path) -> BaseEntry:
    """Copy a base folder into ``out/base``, or find the hub's commit; return the lock's entry."""
    source, revision = Path(base), None
    if source.is_dir():
        copied = [*LOCKED, "generation_config.json", "tokenizer_config.json", BASE_WEIGHTS, SHOWN]
        for file in copied:
            _copy(source / file, out / "base" / file)
        names = [*LOCKED, BASE_WEIGHTS]
    else:
        try:
            source = Path(snapshot_download(base, local_files_only=True))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
            raise ExportError(
                f"{base} is neither a folder nor in the Hugging Face cache"
            ) from error
        revision, names = source.name, list(LOCKED)
    files = {file: sha256(source / file) for file in names}
    return BaseEntry(name=name, revision=revision, files=files)


def export_adapter(folder: Path, base_name: str, out: Path) -> AdapterEntry:
    """Copy one adapter into ``out``; return the lock's entry.

    Raises:
        ExportError: the folder's name is no task, or a file is missing.
    """
    if folder.name not in TASKS:
        raise ExportError(f"{folder}: no task of that name; the registry has {list(TASKS)}")
    task, target = TASKS[folder.name], out / folder.name
    for file in (WEIGHTS, ADAPTER_CONFIG, SHOWN):
        _copy(folder / file, target / file)
    config = json.loads((target / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (target / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
    return AdapterEntry(
        sha256=sha256(target / WEIGHTS),
        prompt=task.prompt_fingerprint(),
        output=task.output_fingerprint(),
    )


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise ExportError(f"{source} is missing: train first")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def export(base: str, name: str, adapters: Path, out: Path) -> Lock:
    """Export a base and every adapter folder in ``adapters``; write and return the lock file.

    Raises:
        ExportError: something is missing.
    """
    entry = export_base(base, name, out)
    folders = sorted(path for path in adapters.iterdir() if (path / WEIGHTS).exists())
    if not folders:
        raise ExportError(f"{adapters} has no trained adapter")
    target = out / "adapters"
    lock = Lock(
        base=entry,
        adapters={folder.name: export_adapter(folder, name, target) for folder in folders},
    )
    lock.save(target)
    return lock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--base", required=True, help="a folder, or a name on the hub")
    parser.add_argument("--name", required=True, help="what API clients call the base")
    parser.add_argument("--adapters", type=Path, required=True, help="one sub-folder an adapter")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        lock = export(arguments.base, arguments.name, arguments.adapters, arguments.out)
    except (ExportError, OSError) as error:
        sys.exit(f"export: {error}")
    print(f"{arguments.out}: base {lock.base.name}, adapters {', '.join(lock.adapters)}")


if __name__ == "__main__":
    main()
