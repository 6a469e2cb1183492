"""What the drafter costs: microseconds a request a step, driven as the engine drives it.

Answers are drawn at random, so there is nothing to remember and most guesses are wrong.
"""

from __future__ import annotations

import gc
import statistics
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from loadtests.drawn import ASKED, drawn
from loadtests.report import percentile
from serving.contract.tasks import TASKS
from serving.engine.drafter import Drafts

DRAFT_TOKENS = 48
REQUESTS = 1000
SEED = 7


def measure(base: Path) -> list[dict[str, Any]]:
    """Cost by kind of request.

    Args:
        base: folder with the tokenizer.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = []
    drafts = Drafts(tokenizer, DRAFT_TOKENS)
    gc.collect()
    gc.freeze()  # as vLLM's worker does once it has loaded everything
    for asked in ("rate", "month, rates given"):
        spent = _spent(drafts, tokenizer, asked)
        found.append(
            {
                "asked": asked,
                "steps": len(spent),
                "p50_microseconds": round(statistics.median(spent), 1),
                "p99_microseconds": round(percentile(spent, 99), 1),
            }
        )
    gc.unfreeze()
    return found


def _spent(drafts: Drafts, tokenizer: Any, asked: str) -> list[float]:
    """Microseconds of each proposal."""
    name, request_of = ASKED[asked]
    task, chance, spent = TASKS[name], Random(SEED), []
    for _ in range(REQUESTS):
        request = request_of(drawn(chance))
        output = task.output(request)
        prompt = tokenizer.encode(task.prompt(request) + output.head)
        text = output.decided(output.sample(chance))
        answer = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        tokens, done, new = np.array(prompt + answer, dtype=np.int32), 1, 1
        while done < len(answer):
            start = time.perf_counter_ns()
            draft = drafts.draft(tokens[: len(prompt) + done], new)
            spent.append((time.perf_counter_ns() - start) / 1000)
            rest = answer[done:]
            right = [one == other for one, other in zip(draft, rest, strict=False)]
            kept = right.index(False) if False in right else len(right)
            new = min(kept + 1, len(rest))
            done += new
    return spent


def sentence(costs: list[dict[str, Any]]) -> str:
    """For the README."""
    parts = [
        f"{cost['asked']} {cost['p50_microseconds']:.0f} µs at the median and "
        f"{cost['p99_microseconds']:.0f} at p99"
        for cost in costs
    ]
    return f"The drafter takes, a request a step, on answers drawn at random: {'; '.join(parts)}."
