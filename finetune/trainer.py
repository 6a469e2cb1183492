"""Hugging Face's trainer with a loss weight for each token.

TRL's SFTTrainer (1.10) has no such weights: a token counts or does not. Decisions are four of a
hundred tokens.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import DatasetDict, load_dataset
from torch import Tensor, nn
from transformers import (
    EvalPrediction,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from finetune.data import collate, encode_row
from finetune.model import load
from finetune.recipe import Recipe, RecipeError

SCORE = "all_decided_right"
EVALUATIONS = 10
"""Evaluations, and checkpoints, of a training."""


class WeightedTrainer(Trainer):
    """Hugging Face trainer with per-token loss weights."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute the weighted cross-entropy of a batch from ``finetune.data.collate``.

        Args:
            model: a causal language model.
            inputs: the batch.
            return_outputs: whether to return the model's outputs, too.
            num_items_in_batch: float32, the sum of all weights of a step. The losses of the step's
                passes add up to the weighted mean; over devices, their mean does.
        """
        assert isinstance(num_items_in_batch, Tensor)
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        logits, labels = outputs.logits[:, :-1], inputs["labels"][:, 1:]
        weights = inputs["weights"][:, 1:]
        used = weights > 0
        losses = nn.functional.cross_entropy(logits[used].float(), labels[used], reduction="none")
        loss = (losses * weights[used]).sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Tensor]], device: torch.device
    ) -> Tensor:
        """Return the sum of the loss weights of a step's passes, on all devices; transformers
        counts labels."""
        weights = torch.stack([batch["weights"][:, 1:].sum() for batch in batch_samples]).sum()
        total: Tensor = self.accelerator.gather(weights.to(device)).sum()
        return total


def share_all_decided(prediction: EvalPrediction) -> dict[str, float]:
    """Compute the share of rows whose decided tokens are all the model's first choice.

    Each decision is predicted given the correct earlier ones, so greedy decoding under the output's
    constraint gets every such row right, and possibly more, where the first choice is illegal.
    """
    chosen, label_ids = np.asarray(prediction.predictions), prediction.label_ids
    labels, decided = (np.asarray(ids) for ids in label_ids)
    right = (chosen[:, :-1] == labels[:, 1:]) | (decided[:, 1:] != 1)  # the trainer pads with -100
    return {SCORE: float(right.all(axis=1).mean())}


def first_choice(logits: Tensor, labels: Any) -> Tensor:
    return logits.argmax(-1)


def training_arguments(recipe: Recipe) -> TrainingArguments:
    """Return the trainer's arguments for ``recipe``.

    Raises:
        RecipeError: its batch cannot be divided into passes of as many rows on each device.
    """
    arguments = TrainingArguments(
        output_dir=str(recipe.out),
        max_steps=recipe.steps,
        gradient_checkpointing=recipe.checkpointing,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        bf16=recipe.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=20,
        eval_strategy="steps" if recipe.validation else "no",
        eval_steps=max(1, recipe.steps // EVALUATIONS),
        save_steps=max(1, recipe.steps // EVALUATIONS),
        save_total_limit=2,
        load_best_model_at_end=recipe.validation is not None,
        metric_for_best_model="loss",  # unlike the score, it is never the same twice
        include_num_input_tokens_seen="non_padding",  # and with it, tokens a second
        report_to="none",  # the callbacks are made in `prepare`, where their errors are told
        remove_unused_columns=False,
        # 1.7 times the tokens a second of rows in any order, of one task and 1.25 of the other.
        # Rows packed without padding, each for itself by its position ids, were 1.08 times as fast
        # at best (256 tokens a pack, on a CPU), and slower with more.
        train_sampling_strategy="group_by_length",
        label_names=["labels", "decided"],
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=recipe.seed,
    )
    devices = arguments.world_size * max(1, arguments.n_gpu)
    rows = recipe.device_batch or max(1, recipe.batch // devices)
    passes, left = divmod(recipe.batch, rows * devices)
    if left or not passes:
        raise RecipeError(
            f"batch is {recipe.batch}, no multiple of {rows} rows (device_batch) on each of "
            f"{devices} devices"
        )
    arguments.per_device_train_batch_size = arguments.per_device_eval_batch_size = rows
    arguments.gradient_accumulation_steps = passes
    return arguments


class Run(NamedTuple):
    """A training that can start."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    rows: DatasetDict
    """Encoded rows, by "train" and "validation"."""
    trainer: WeightedTrainer


def prepare(recipe: Recipe) -> Run:
    """Load model and rows.

    Raises:
        RecipeError: the base model does not exist, ``report_to`` names no tracker that is
            installed, or the batch does not fit the devices.
    """
    set_seed(recipe.seed)
    files = {"train": [str(path) for path in recipe.train]}
    if recipe.validation:
        files["validation"] = [str(recipe.validation)]
    rows = load_dataset("json", data_files=files)
    model, tokenizer = load(recipe, rows["train"])
    encoded = rows.map(
        partial(encode_row, tokenizer=tokenizer, recipe=recipe),
        with_indices=True,
        remove_columns=rows["train"].column_names,
        desc="tokenize",
    )
    try:
        makers = get_reporting_integration_callbacks(recipe.report_to)  # type: ignore[no-untyped-call]
        trackers = [make() for make in makers]
    except (ValueError, ImportError, RuntimeError) as error:
        raise RecipeError(f"report_to: {error}") from error
    trainer = WeightedTrainer(
        model=model,
        args=training_arguments(recipe),
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"] if recipe.validation else None,
        data_collator=partial(collate, pad=tokenizer.eos_token_id),
        compute_metrics=share_all_decided,
        preprocess_logits_for_metrics=first_choice,
        callbacks=trackers,
    )
    return Run(model, tokenizer, encoded, trainer)
