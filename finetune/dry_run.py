"""What a training takes, measured in two passes of its longest rows, which leave nothing behind."""

import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from datasets import Dataset
from transformers import TrainerCallback

from finetune.recipe import Recipe
from finetune.trainer import EVALUATIONS, prepare, training_arguments

FORWARD_SHARE = 1 / 3
"""Of a training pass's time: the backward pass computes twice as much."""
GB = 1e9


class _Clock(TrainerCallback):
    """Measures the last step, in seconds."""

    seconds = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._start


def dry_run(recipe: Recipe) -> str:
    """Return the recipe, with its parameters, tokens, memory and time, as text.

    Raises:
        RecipeError: as ``finetune.trainer.prepare`` does.
    """
    arguments = training_arguments(recipe)
    rows, passes = arguments.train_batch_size, arguments.gradient_accumulation_steps
    clock = _Clock()
    with TemporaryDirectory() as folder:
        tried = {"steps": 2, "batch": rows, "out": Path(folder), "report_to": "none"}
        run = prepare(recipe.model_copy(update=tried))
        train = run.rows["train"]
        lengths = np.array([len(ids) for ids in train["input_ids"]])
        longest = np.argsort(lengths)[::-1][: 2 * rows]
        run.trainer.train_dataset = train.select(longest)
        run.trainer.args.eval_strategy = run.trainer.args.save_strategy = "no"
        run.trainer.args.load_best_model_at_end = False
        run.trainer.add_callback(clock)
        run.trainer.train()
    parameters = [p.numel() for p in run.model.parameters()]
    trained = [p.numel() for p in run.model.parameters() if p.requires_grad]
    speed = lengths[longest].sum() / 2 / clock.seconds
    count = recipe.steps * recipe.batch
    validated = EVALUATIONS * _tokens(run.rows.get("validation")) * FORWARD_SHARE
    seconds = (count * lengths.mean() + validated) / speed
    return f"""{yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False)}
parameters  {sum(trained):,} trained of {sum(parameters):,}
rows        {len(lengths):,} of {lengths.mean():.0f} tokens, {lengths.max()} at most
steps       {recipe.steps:,} of {recipe.batch} rows: {count / len(lengths):.2f} epochs
tokens      {count * lengths.mean():,.0f}, about {speed:,.0f} a second
memory      {_peak_bytes() / GB:.1f} GB at most, on {_device()}
time        about {seconds / 60:,.0f} minutes
passes      {passes} a step; {clock.seconds:.1f} s for {rows} of the longest rows"""


def _tokens(rows: Dataset | None) -> int:
    return sum(len(ids) for ids in rows["input_ids"]) if rows else 0


def _peak_bytes() -> int:
    """Return the most memory that this process has taken: of the GPU, or where there is none, of
    the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
