"""Score adapters through vLLM: ``python -m finetune.evaluate --adapters finetune/demo/adapters``.

Starts the engine as serving does (``python -m serving.engine``) and sends it every held-out request
under the task's constraint, with and without the adapter. Checks each answer and compares its
decisions with the coach's. Writes the scores to the lock file, or to the ``--scores`` file.
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from openai import AsyncOpenAI
from tqdm.asyncio import tqdm

from loadtests.service import NotServed, free_port, served
from serving.language.fields import OutputError
from serving.lock import Lock, LockError, Scores
from serving.tasks.registry import TASKS

CONCURRENCY = 32


class EvaluationError(RuntimeError):
    """There is nothing to score."""


async def score(client: AsyncOpenAI, model: str, rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the share of valid answers, and of answer parts that match the rows' labels.

    Args:
        client: a client for the engine.
        model: name of the adapter or base model.
        rows: rows of one task, labelled by its coach.
    """
    gate = asyncio.Semaphore(CONCURRENCY)

    async def ask(row: dict[str, Any]) -> tuple[bool, list[bool]]:
        task = TASKS[row["task"]]
        request = task.request.model_validate_json(row["request"])
        question = task.question(request)
        output = question.output
        async with gate:
            answer = await client.completions.create(
                model=model,
                prompt=question.prefilled,
                max_tokens=output.max_new_tokens,
                temperature=0,
                extra_body={"structured_outputs": {"regex": output.decided_regex}},
            )
        wanted = task.parts(output.parse(row["completion"]))
        try:
            given = task.answer(question, answer.choices[0].text)
        except OutputError:
            return False, [False] * len(wanted)
        right = [one == other for one, other in zip(task.parts(given.values), wanted, strict=True)]
        return not given.broken, right

    results = await tqdm.gather(*map(ask, rows), desc=model, unit=" requests")
    right = [one for _, parts in results for one in parts]
    return sum(valid for valid, _ in results) / len(results), sum(right) / len(right)


async def evaluate(url: str, lock: Lock, test_sets: Path, requests: int) -> dict[str, Scores]:
    """Return the scores of each adapter.

    Args:
        url: URL of a running engine.
        lock: lock file that names the base and adapters.
        test_sets: folder with ``<task>/test.jsonl`` and ``odd.jsonl``.
        requests: number of rows to use from each file.

    Raises:
        EvaluationError: a test set is missing or too short.
    """
    scores = {}
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=600) as client:
        for name in lock.adapters:
            rows = read_rows(test_sets / name / "test.jsonl", requests)
            odd_rows = read_rows(test_sets / name / "odd.jsonl", requests)
            valid, with_adapter = await score(client, name, rows)
            odd_valid, odd = await score(client, name, odd_rows)
            _, without_adapter = await score(client, lock.base.name, rows)
            scores[name] = Scores(
                requests=requests,
                valid=(valid + odd_valid) / 2,
                part=TASKS[name].part,
                with_adapter=with_adapter,
                without_adapter=without_adapter,
                odd=odd,
            )
    return scores


def read_rows(path: Path, count: int) -> list[dict[str, Any]]:
    """Return the first ``count`` rows of a file.

    Raises:
        EvaluationError: the file is missing or too short.
    """
    if not path.exists():
        raise EvaluationError(f"{path} is missing: run `make dataset`")
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    if len(lines) < count:
        raise EvaluationError(f"{path} has {len(lines)} rows, fewer than {count}")
    return [json.loads(line) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", help="base model (default: the demo's)")
    parser.add_argument("--adapters", type=Path, required=True, help="folder with lock.json")
    parser.add_argument("--test-sets", type=Path, default=Path("dataset/data"))
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--scores", type=Path, help="JSON file for them, instead of the lock file")
    arguments = parser.parse_args()
    port = str(free_port())
    environment = {**os.environ, "ADAPTERS": str(arguments.adapters), "ENGINE_PORT": port}
    if arguments.model:
        environment["MODEL"] = arguments.model
    command, url = [sys.executable, "-m", "serving.engine"], f"http://127.0.0.1:{port}"
    try:
        lock = Lock.load(arguments.adapters)
        with (
            NamedTemporaryFile(suffix=".log") as log,
            served(command, f"{url}/health", Path(log.name), environment),
        ):
            scores = asyncio.run(evaluate(url, lock, arguments.test_sets, arguments.requests))
    except (EvaluationError, LockError, NotServed) as error:
        sys.exit(f"evaluate: {error}")
    if arguments.scores:
        found = {name: result.model_dump() for name, result in scores.items()}
        arguments.scores.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    else:
        adapters = {
            name: entry.model_copy(update={"scores": scores[name]})
            for name, entry in lock.adapters.items()
        }
        lock.model_copy(update={"adapters": adapters}).save(arguments.adapters)
    for name, result in scores.items():
        print(
            f"{name}: {result.with_adapter:.1%} of each {result.part} right with the adapter "
            f"({result.odd:.1%} of odd lifters), {result.without_adapter:.1%} without; "
            f"{result.valid:.1%} valid of {result.requests} requests of each kind"
        )
    low = [name for name, result in scores.items() if result.least < TASKS[name].least_score]
    if low:
        sys.exit(f"evaluate: {', '.join(low)} agrees too rarely with its coach")


if __name__ == "__main__":
    main()
