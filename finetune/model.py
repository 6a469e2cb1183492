"""The model to train: a new base, or an adapter on one."""

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetune.recipe import NewModel, Recipe, RecipeError
from finetune.tokenizer import train_tokenizer
from serving.tasks.profile import MAX_KG

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


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
        precision = PRECISIONS[recipe.precision]
        base = AutoModelForCausalLM.from_pretrained(recipe.model, dtype=precision)
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
