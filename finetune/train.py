"""Train a model from a recipe: ``python -m finetune.train finetune/recipes/demo-rate.yaml``.

The same code trains the demo base, its adapters, and adapters of polyglot-ko-1.3b. Writes weights,
``loss.png``, ``log.json`` and ``training.json`` to the recipe's ``out`` folder. If it was stopped,
in whatever way, run it again: it goes on from its last checkpoint. ``steps=100 lora.rank=8`` after
the recipe change its fields, and ``--dry-run`` says what it takes. On several GPUs: ``accelerate
launch -m finetune.train ...``.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from finetune.data import RowError
from finetune.dry_run import dry_run
from finetune.plot import plot_loss
from finetune.recipe import Recipe, RecipeError
from finetune.record import Record, RecordError, record_of
from finetune.trainer import SCORE, prepare


def begun(record: Record, out: Path) -> str | None:
    """Write ``record``; return the last checkpoint in ``out`` if it is of the same training.

    Args:
        record: of the training that starts.
        out: its folder.
    """
    is_same = record.is_in(out)
    for path in _checkpoints(out):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # what is written last
            shutil.rmtree(path)
        else:
            if not is_same:
                shutil.rmtree(path)
    record.save(out)
    found: str | None = get_last_checkpoint(out)  # type: ignore[no-untyped-call]
    if found:
        print(f"going on from {found}", flush=True)
    return found


def _checkpoints(out: Path) -> list[Path]:
    return list(out.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))


def run(recipe: Recipe) -> dict[str, Any]:
    """Train; write weights, loss curve, log and record to ``recipe.out``; return the log.

    Raises:
        RecipeError: as ``prepare`` does.
    """
    model, tokenizer, rows, trainer = prepare(recipe)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"training {parameters:,} parameters on {len(rows['train']):,} rows", flush=True)
    record = record_of(recipe)
    with trainer.args.main_process_first(local=False):
        checkpoint = begun(record, recipe.out)
    first_step = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    log = {
        "trained_parameters": parameters,
        "rows": len(rows["train"]),
        "first_step": first_step,
        "seconds": round(time.perf_counter() - start, 1),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "history": trainer.state.log_history,
    }
    if trainer.is_world_process_zero():
        _save(recipe.out, model, tokenizer, log)
        record.model_copy(update={"is_finished": True}).save(recipe.out)
        for path in _checkpoints(recipe.out):
            shutil.rmtree(path)
    return log


def _save(out: Path, model: Any, tokenizer: PreTrainedTokenizerBase, log: dict[str, Any]) -> None:
    """Save the weights as bf16 safetensors, with the tokenizer, training log and loss curve."""
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "log.json").write_text(json.dumps(log, indent=1), encoding="utf-8")
    plot_loss(out / "loss.png", log["history"], out.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("changes", nargs="*", metavar="field=value", help="such as steps=100")
    parser.add_argument("--dry-run", action="store_true", help="say what it takes; do not train")
    arguments = parser.parse_args()
    try:
        recipe = Recipe.load(arguments.recipe, arguments.changes)
        missing = [path for path in recipe.files if not path.exists()]
        if missing:
            raise RecipeError(f"{missing[0]} is missing: run `make dataset` first")
        if arguments.dry_run:
            print(dry_run(recipe))
            return
        log = run(recipe)
    except (RecipeError, RecordError, RowError) as error:
        sys.exit(f"train: {error}")
    scores = [entry[f"eval_{SCORE}"] for entry in log["history"] if f"eval_{SCORE}" in entry]
    score = f", all decided right {max(scores):.1%}" if scores else ""
    print(f"{recipe.out}: {log['seconds'] / 60:.1f} minutes{score}")


if __name__ == "__main__":
    main()
