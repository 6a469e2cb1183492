"""Train a model from a recipe: ``python -m finetune.train finetune/recipes/demo-rate.yaml``.

The same code trains the demo base, its adapters, and adapters of polyglot-ko-1.3b. Writes weights,
``loss.png``, ``log.json`` and ``training.json`` to the recipe's ``out`` folder. If it was stopped,
in whatever way, run it again: it goes on from its last checkpoint.
"""

import argparse
import json
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    EvalPrediction,
    GPTNeoXConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from finetune.data import collate, encode_row
from finetune.plot import plot_loss
from finetune.recipe import NewModel, Recipe, RecipeError
from finetune.record import Record, RecordError, record_of
from finetune.tokenizer import train_tokenizer
from serving.tasks.profile import MAX_KG

CHECKPOINTS = "checkpoints"
"""Folder beside the weights, as long as the training has not finished."""
SCORE = "all_decided_right"


class WeightedTrainer(Trainer):
    """Hugging Face trainer with per-token loss weights."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute the weighted mean cross-entropy of a batch from ``finetune.data.collate``."""
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        logits, labels = outputs.logits[:, :-1], inputs["labels"][:, 1:]
        weights = inputs["weights"][:, 1:]
        used = weights > 0
        losses = nn.functional.cross_entropy(logits[used].float(), labels[used], reduction="none")
        loss = (losses * weights[used]).sum() / weights[used].sum()
        return (loss, outputs) if return_outputs else loss


def new_base(shape: NewModel, rows: Dataset) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Create an untrained GPT-NeoX with polyglot-ko's architecture, and its tokenizer."""
    tokenizer = train_tokenizer((r["prompt"] + r["completion"] for r in rows), shape.vocabulary)
    config = GPTNeoXConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=shape.context,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
        hidden_act="gelu",
        use_parallel_residual=True,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    order_numbers(embeddings.weight.data, tokenizer, config.initializer_range)
    return model, tokenizer


def order_numbers(
    embeddings: Tensor, tokenizer: PreTrainedTokenizerBase, initializer_range: float
) -> None:
    """Add to each whole number's embedding where it stands from 0 to ``MAX_KG``, as a thermometer
    code: a dimension is positive from some number on, and negative below.

    A pretrained model knows that 97 is more than 90. Ours would have to learn of every number by
    itself what it means, and an adapter, which has no embeddings, could not make up for it.

    Args:
        embeddings: shape (vocabulary, hidden), changed in place.
        tokenizer: tells which tokens are numbers.
        initializer_range: standard deviation of the embeddings; the code is as large.
    """
    marks = torch.linspace(0, MAX_KG, embeddings.shape[1])
    for token, number in tokenizer.get_vocab().items():
        text = tokenizer.convert_tokens_to_string([token]).strip()
        if text.isdecimal() and text.isascii():
            embeddings[number] += initializer_range * torch.where(float(text) >= marks, 1.0, -1.0)


def load(recipe: Recipe, rows: Dataset) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Load or create the model to train, and its tokenizer.

    Raises:
        RecipeError: the base model does not exist.
    """
    if recipe.new_model:
        return new_base(recipe.new_model, rows)
    assert recipe.model and recipe.lora
    try:
        tokenizer = AutoTokenizer.from_pretrained(recipe.model)
        base = AutoModelForCausalLM.from_pretrained(recipe.model, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{recipe.model} is no base model ({str(error).splitlines()[0]}): train it first "
            "(make demo-model), or name a folder or a model on the hub"
        ) from error
    config = LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=recipe.lora.target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config), tokenizer


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
    """Return the trainer's arguments for ``recipe``."""
    return TrainingArguments(
        output_dir=str(recipe.out / CHECKPOINTS),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch,
        per_device_eval_batch_size=recipe.batch,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        bf16=recipe.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=20,
        eval_strategy="steps" if recipe.validation else "no",
        eval_steps=max(1, recipe.steps // 10),
        save_steps=max(1, recipe.steps // 10),
        save_total_limit=2,
        load_best_model_at_end=recipe.validation is not None,
        metric_for_best_model=SCORE,
        report_to="none",
        remove_unused_columns=False,
        train_sampling_strategy="group_by_length",  # do not mix rows with and without tails
        length_column_name="has_tail",
        label_names=["labels", "decided"],
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=recipe.seed,
    )


def begun(record: Record, out: Path) -> str | None:
    """Write ``record``; return the last checkpoint in ``out`` if it is of the same training.

    Args:
        record: of the training that starts.
        out: its folder.
    """
    checkpoints = out / CHECKPOINTS
    if not record.is_in(out):
        shutil.rmtree(checkpoints, ignore_errors=True)
    record.save(out)
    for path in checkpoints.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # what is written last
            shutil.rmtree(path)
    if not checkpoints.is_dir():
        return None
    found: str | None = get_last_checkpoint(checkpoints)  # type: ignore[no-untyped-call]
    if found:
        print(f"going on from {found}", flush=True)
    return found


def run(recipe: Recipe) -> dict[str, Any]:
    """Train; write weights, loss curve, log and record to ``recipe.out``; return the log.

    Raises:
        RecipeError: the base model does not exist.
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
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"training {parameters:,} parameters on {len(encoded['train']):,} rows", flush=True)

    trainer = WeightedTrainer(
        model=model,
        args=training_arguments(recipe),
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"] if recipe.validation else None,
        data_collator=partial(collate, pad=tokenizer.eos_token_id),
        compute_metrics=share_all_decided,
        preprocess_logits_for_metrics=first_choice,
    )
    record = record_of(recipe)
    checkpoint = begun(record, recipe.out)
    first_step = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    log = {
        "trained_parameters": parameters,
        "rows": len(encoded["train"]),
        "first_step": first_step,
        "seconds": round(time.perf_counter() - start, 1),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "history": trainer.state.log_history,
    }
    _save(recipe.out, model, tokenizer, log)
    record.model_copy(update={"is_finished": True}).save(recipe.out)
    shutil.rmtree(recipe.out / CHECKPOINTS)
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
    arguments = parser.parse_args()
    try:
        recipe = Recipe.load(arguments.recipe)
        missing = [path for path in recipe.files if not path.exists()]
        if missing:
            raise RecipeError(f"{missing[0]} is missing: run `make dataset` first")
        log = run(recipe)
    except (RecipeError, RecordError) as error:
        sys.exit(f"train: {error}")
    scores = [entry[f"eval_{SCORE}"] for entry in log["history"] if f"eval_{SCORE}" in entry]
    score = f", all decided right {max(scores):.1%}" if scores else ""
    print(f"{recipe.out}: {log['seconds'] / 60:.1f} minutes{score}")


if __name__ == "__main__":
    main()
