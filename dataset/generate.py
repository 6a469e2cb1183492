"""Write the dataset: ``python -m dataset.generate --out dataset/data``.

Files are JSON Lines in the prompt/completion format that Hugging Face ``datasets`` and TRL read:

- ``form.jsonl``: for the base model. Legal answers for every task with random decisions, so the
  model learns the text format but not which answer fits a profile.
- ``<task>/train.jsonl``, ``validation.jsonl``, ``test.jsonl`` and ``odd.jsonl``, a second test of
  lifters whose lifts are unrelated: labelled by the task's coach.

A hash assigns each request to one split, so no test prompt appears in training, including in
``form.jsonl``; nor, where a task's source says so, the coach's answer to it.
"""

import argparse
import hashlib
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataset.card import write_card
from dataset.coaches import Source
from dataset.profiles import ODD, USUAL
from serving.tasks.base import Task
from serving.tasks.registry import TASKS

SPLITS = {"train": 80, "validation": 10, "test": 10}
"""Percentage of what is held out assigned to each split."""
FILES = {
    "train": ("train", USUAL),
    "validation": ("validation", USUAL),
    "test": ("test", USUAL),
    "odd": ("test", ODD),
}
"""Split and lifters of each file of a task."""
SEED = 531
MOST_REPEATS = 100_000
"""Consecutive requests without a new prompt after which the source counts as exhausted."""

SOURCES: dict[str, Source] = {
    name: import_module(f"dataset.coaches.{name}").SOURCE for name in TASKS
}
"""Source of each task's rows: ``SOURCE`` of ``dataset/coaches/<task>.py``."""

Row = Mapping[str, Any]


class RowError(ValueError):
    """A dataset row is invalid or cannot be generated; the message says which."""


def split_of(task: Task[Any], request: Any) -> str:
    """Return the only split that may contain this request's prompt or, if that is what its source
    holds out, its coached answer."""
    question, source = task.question(request), SOURCES[task.name]
    text = question.prompt
    if source.held_out == "answer":
        text = question.output.text(source.coach(request))
    place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % 100
    for split, share in SPLITS.items():
        if place < share:
            return split
        place -= share
    raise AssertionError("shares add up to 100")


def rows(task: Task[Any], file: str, count: int, seed: int, form: bool = False) -> Iterator[Row]:
    """Yield ``count`` rows of ``file`` with distinct prompts; ``form`` makes decisions random.

    Raises:
        RowError: the coach's requests have too few distinct prompts for ``file``.
    """
    source, rng, seen, since = SOURCES[task.name], random.Random(seed), set[str](), 0
    split, mix = FILES[file]
    for request in source.requests(seed, mix):
        question = task.question(request)
        since += 1
        if since > MOST_REPEATS:
            break
        if question.prompt in seen or split_of(task, request) != split:
            continue
        seen.add(question.prompt)
        since = 0
        values = question.output.sample(rng) if form else source.coach(request)
        yield {
            "task": task.name,
            "prompt": question.prompt,
            "completion": question.output.text(values),
            "request": request.model_dump_json(),
        }
        if len(seen) == count:
            return
    raise RowError(
        f"{task.name}: {len(seen)} distinct prompts for {file}, fewer than {count}: ask for fewer "
        f"rows in dataset/coaches/{task.name}.py"
    )


def validate_row(row: Row, is_coached: bool) -> dict[str, Any]:
    """Check one row, as written, against its task and, if labelled, against the coach.

    Returns:
        The decided values in the row's completion.

    Raises:
        RowError: the prompt, completion or label is wrong.
    """
    task = TASKS[row["task"]]
    request = task.request.model_validate_json(row["request"])
    values = task.question(request).output.parse(row["completion"])
    broken = task.check(request, json.loads(task.render(request, values)))
    if row["prompt"] != task.question(request).prompt:
        broken.append("prompt")
    if is_coached and values != SOURCES[task.name].coach(request):
        broken.append("label")
    if broken:
        raise RowError(f"rules {broken} broken by {json.dumps(row, ensure_ascii=False)}")
    return values


def write(path: Path, stream: Iterator[Row], count: int, coached: bool) -> list[dict[str, Any]]:
    """Validate ``stream`` and write it to ``path``; return the decisions in each row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    decided = []
    with path.open("w", encoding="utf-8") as file:
        for row in tqdm(stream, total=count, desc=f"{path.parent.name}/{path.name}", unit=" rows"):
            decided.append(validate_row(row, coached))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return decided


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON Lines files")
    parser.add_argument("--card", type=Path, help="folder for card.md and its plots")
    parser.add_argument("--scale", type=float, default=1.0, help="rows as a share of the full size")
    arguments = parser.parse_args()
    if not 0 < arguments.scale <= 1:
        parser.error("--scale must be above 0 and at most 1")

    def scaled(count: int) -> int:
        return max(1, int(count * arguments.scale))

    try:
        files = generate(arguments.out, scaled)
    except RowError as error:
        sys.exit(f"dataset: {error}")
    if arguments.card:
        write_card(arguments.card, files)


def generate(out: Path, scaled: Callable[[int], int]) -> dict[str, list[dict[str, Any]]]:
    """Write all files into ``out``; return the decisions in each row, by file.

    Raises:
        RowError: a row is invalid, or a coach has too few distinct requests.
    """
    counts = {name: scaled(source.form_rows) for name, source in SOURCES.items()}
    streams = [rows(TASKS[name], "train", counts[name], SEED, form=True) for name in counts]
    every_form = itertools.chain.from_iterable(streams)
    files = {"form": write(out / "form.jsonl", every_form, sum(counts.values()), False)}
    for name, source in SOURCES.items():
        for number, (file, full) in enumerate(source.rows.items(), 1):
            stream = rows(TASKS[name], file, scaled(full), SEED + number)
            path = out / name / f"{file}.jsonl"
            files[f"{name}/{file}"] = write(path, stream, scaled(full), coached=True)
    return files


if __name__ == "__main__":
    main()
