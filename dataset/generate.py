"""Write the dataset: ``python -m dataset.generate --out dataset/data``.

Files, JSON Lines in the prompt/completion shape that Hugging Face ``datasets`` and TRL read:

- ``form.jsonl``: for the base model. Legal answers with rates drawn at random, so that it
  learns how texts look and nothing about which answer fits a profile.
- ``rate/train.jsonl``, ``validation.jsonl`` and ``test.jsonl``: labelled by the coach policy.

A profile belongs to one split by a hash of its prompt, so no test profile is seen in training, not
in ``form.jsonl`` either.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataset.card import write_card
from dataset.policy import coach
from dataset.profiles import profiles
from dataset.validate import validate_row
from serving.contract.profile import Profile
from serving.contract.tasks import TASKS

SPLITS = {"train": 80, "validation": 10, "test": 10}
"""Share of all profiles that may serve a split, in percent."""
ROWS = {"train": 80_000, "validation": 1_000, "test": 2_000}
FORM_ROWS = 20_000
SEED = 531

Row = dict[str, Any]


def split_of(prompt: str) -> str:
    """The one split whose rows may hold this prompt."""
    place = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4]) % 100
    for split, share in SPLITS.items():
        if place < share:
            return split
        place -= share
    raise AssertionError("shares add up to 100")


def rows(task_name: str, split: str, count: int, seed: int, form: bool = False) -> Iterator[Row]:
    """``count`` distinct rows of ``split``; with ``form``, rates are random instead of coached."""
    task, chance, seen = TASKS[task_name], random.Random(seed), set[str]()
    for profile in profiles(seed):
        prompt = task.prompt(profile)
        if prompt in seen or split_of(prompt) != split:
            continue
        seen.add(prompt)
        output = task.output(profile)
        values = chance.choice(list(output.enumerate())) if form else coach(profile)
        yield {
            "task": task_name,
            "prompt": prompt,
            "completion": output.text(values),
            "request": profile.model_dump(),
        }
        if len(seen) == count:
            return


def write(path: Path, stream: Iterator[Row], count: int, coached: bool) -> Counter[str]:
    """Validate and write ``stream``; return how often each answer's rates occur."""
    path.parent.mkdir(parents=True, exist_ok=True)
    answers: Counter[str] = Counter()
    with path.open("w", encoding="utf-8") as file:
        for row in tqdm(stream, total=count, desc=path.name, unit=" rows"):
            values = validate_row(row, coach(Profile.model_validate(row["request"])), coached)
            answers["/".join(str(value) for value in values.values())] += 1
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON Lines files")
    parser.add_argument("--card", type=Path, help="folder for card.md and rates.png")
    parser.add_argument("--scale", type=float, default=1.0, help="rows as a share of the full size")
    arguments = parser.parse_args()
    if not 0 < arguments.scale <= 1:
        parser.error("--scale must be above 0 and at most 1")

    count = max(1, round(FORM_ROWS * arguments.scale))
    form = rows("rate", "train", count, SEED, form=True)
    counts = {"form": write(arguments.out / "form.jsonl", form, count, coached=False)}
    for number, (split, full) in enumerate(ROWS.items(), 1):
        count = max(1, round(full * arguments.scale))
        stream = rows("rate", split, count, SEED + number)
        name = f"rate/{split}"
        counts[name] = write(arguments.out / f"{name}.jsonl", stream, count, coached=True)
    if arguments.card:
        write_card(arguments.card, counts)


if __name__ == "__main__":
    main()
