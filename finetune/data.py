"""Convert dataset rows to token ids, labels and loss weights.

A row's text is tokenized in one piece, exactly as the engine tokenizes it. Loss weights are derived
from character positions: the output defines which characters of a completion are decisions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from finetune.recipe import Recipe
from serving.tasks.base import Question
from serving.tasks.registry import TASKS

IGNORED = -100


class RowError(ValueError):
    """A row is not of this version of the tasks; the message says what to do."""


class TokenizationError(RowError):
    """A token crosses a prompt, head or decision boundary; serving would tokenize differently."""


class Tokens(NamedTuple):
    """A prompt and its completion, token by token."""

    ids: list[int]
    starts: list[int]
    """Characters before each."""
    decided: list[bool]
    """Whether it is of a decision."""

    @property
    def end(self) -> int:
        """Number of tokens up to the last decided."""
        return len(self.decided) - self.decided[::-1].index(True)


def tokens_of(
    question: Question[Any], completion: str, tokenizer: PreTrainedTokenizerBase
) -> Tokens:
    """Tokenize a question's prompt and an answer to it, as the engine does.

    Raises:
        TokenizationError: a token crosses the end of the prompt or of its forced head, or the
            boundary of a decision, so serving the prompt alone would produce different tokens.
    """
    prompt, output = question.prompt, question.output
    edges = {len(prompt), len(question.prefilled)}
    decided_characters = set()
    for start, end in output.decision_spans(output.parse(completion)):
        edges |= {len(prompt) + start, len(prompt) + end}
        decided_characters |= set(range(len(prompt) + start, len(prompt) + end))
    text = prompt + completion
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    for start, end in encoded["offset_mapping"]:
        if any(start < edge < end for edge in edges):
            raise TokenizationError(f"one token, {text[start:end]!r}, spans an edge of the output")
    starts = [start for start, _ in encoded["offset_mapping"]]
    return Tokens(encoded["input_ids"], starts, [start in decided_characters for start in starts])


def encode_row(
    row: Mapping[str, Any],
    index: int,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
) -> dict[str, Any]:
    """Encode one training example; ``index`` decides if it keeps its tail (``recipe.tail_share``).

    Returns:
        ``input_ids`` (int), ``weights`` (float, the loss weight of predicting that token) and
        ``decided`` (0 or 1), lists of equal length. The last token is end-of-text, or the last
        decided token if the tail is dropped.

    Raises:
        RowError: the row has another prompt than serving would build.
        TokenizationError: as ``tokens_of`` does.
    """
    task = TASKS[row["task"]]
    question = task.question(task.request.model_validate_json(row["request"]))
    if row["prompt"] != question.prompt:
        raise RowError(f"a row of {task.name} has another prompt than serving/tasks: make dataset")
    tokens = tokens_of(question, row["completion"], tokenizer)
    weights = [
        recipe.prompt_weight
        if start < len(question.prompt)
        else (recipe.decision_weight if is_decided else 1.0)
        for start, is_decided in zip(tokens.starts, tokens.decided, strict=True)
    ]
    example = {
        "input_ids": [*tokens.ids, tokenizer.eos_token_id],
        "weights": [*weights, 1.0],
        "decided": [*map(int, tokens.decided), 0],
    }
    if int(index * recipe.tail_share) == int((index + 1) * recipe.tail_share):
        example = {name: values[: tokens.end] for name, values in example.items()}
    return example


def collate(rows: Sequence[Mapping[str, Any]], pad: int) -> dict[str, Tensor]:
    """Right-pad rows to the length of the longest.

    Returns:
        int64 ``input_ids``, ``attention_mask``, ``labels`` (``IGNORED`` where the weight is 0) and
        ``decided``, and float32 ``weights``; all of shape (rows, longest).
    """
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, value: float, dtype: torch.dtype) -> Tensor:
        lists = [list(row[name]) + [value] * (longest - len(row[name])) for row in rows]
        return torch.tensor(lists, dtype=dtype)

    ids, weights = padded("input_ids", pad, torch.int64), padded("weights", 0.0, torch.float32)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(longest) < lengths[:, None]).to(torch.int64),
        "labels": torch.where(weights > 0, ids, IGNORED),
        "weights": weights,
        "decided": padded("decided", 0, torch.int64),
    }
