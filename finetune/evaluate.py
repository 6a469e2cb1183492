"""Score adapters through vLLM: ``python -m finetune.evaluate --adapters finetune/demo/adapters``.

Starts the engine as serving does (``python -m serving.engine``) and sends it every held-out request
under the task's constraint, and without adapter or constraint. Checks each answer and compares its
decisions with the coach's, and the engine's tokens with PEFT's. Writes scores and golden answers to
the lock file, and a model card to each adapter's folder; or only the scores to the ``--scores``
file.
"""

import argparse
import asyncio
import itertools
import json
import math
import os
import re
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from openai import AsyncOpenAI
from openai.types import CompletionChoice
from tqdm.asyncio import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.card import write_card
from finetune.data import tokens_of
from finetune.evaluation import (
    Answered,
    Evaluation,
    Share,
    calibration,
    confusions,
    decisions,
    matrices,
)
from finetune.parity import Greedy, agreeing
from loadtests.report import machine
from loadtests.service import NotServed, free_port, served
from serving.engine.machine import look
from serving.engine.preflight import PreflightError, check_model
from serving.engine.settings import EngineSettings
from serving.language.fields import OutputError
from serving.lock import Lock, LockError, Scores
from serving.process import StartError, load
from serving.tasks.base import Question, Task
from serving.tasks.registry import TASKS

CONCURRENCY = 32
COMPARED = 200
"""Requests of each task whose tokens are compared with PEFT's."""
LEAST_PARITY = 0.95
"""Share of them that must be PEFT's, from the first to the last; in bfloat16 a near tie may fall
otherwise."""
PACKAGES = ("torch", "peft", "transformers")


class EvaluationError(RuntimeError):
    """There is nothing to score."""


class Asker:
    """Asks an engine, so many requests at a time.

    Args:
        client: of the engine.
        tokenizer: the base's.
    """

    def __init__(self, client: AsyncOpenAI, tokenizer: PreTrainedTokenizerBase) -> None:
        self._client, self._tokenizer = client, tokenizer
        self._gate = asyncio.Semaphore(CONCURRENCY)

    async def complete(
        self, model: str, question: Question[Any], constrained: bool, **options: Any
    ) -> CompletionChoice:
        """Return what ``model`` writes, greedily."""
        output = question.output
        if constrained:
            options["structured_outputs"] = {"regex": output.decided_regex}
        async with self._gate:
            answer = await self._client.completions.create(
                model=model,
                prompt=question.prefilled,
                max_tokens=output.max_new_tokens,
                temperature=0,
                extra_body=options,
            )
        return answer.choices[0]

    async def answered(
        self, row: dict[str, Any], model: str, known: frozenset[str], constrained: bool = True
    ) -> Answered:
        """Return the answer of ``model`` to a row that its task's coach labelled.

        Args:
            row: as in the dataset's files.
            model: name of an adapter or the base.
            known: completions of the training data.
            constrained: whether the output's constraint is sent. Without it, what follows the last
                decision is left out.
        """
        task = TASKS[row["task"]]
        question = _question(row)
        options = {"logprobs": 0, "return_token_ids": True}
        choice = await self.complete(model, question, constrained, **options)
        wanted = task.parts(question.output.parse(row["completion"]))
        text = choice.text
        if not constrained:
            found = re.match(question.output.decided_regex, text)
            text = found.group() if found else text
        is_known = row["completion"] in known
        try:
            given = task.answer(question, text)
        except OutputError:
            return Answered(wanted, None, False, 0, is_known)
        completion = question.output.text(given.values)
        sure = confidence(question, completion, choice, self._tokenizer)
        return Answered(wanted, task.parts(given.values), not given.broken, sure, is_known)

    async def greedy(self, row: dict[str, Any], model: str) -> Greedy:
        """Return a row's prompt and what ``model`` writes without a constraint, as tokens."""
        question, wanted = _question(row), {"return_token_ids": True}
        choice: Any = await self.complete(model, question, constrained=False, **wanted)
        return Greedy(choice.prompt_token_ids, choice.token_ids)

    async def golden(self, task: Task[Any]) -> list[str]:
        """Return the adapter's answers to the task's examples and edges."""
        questions = [task.question(request) for request in task.examples + task.edges]
        asked = (self.complete(task.name, question, constrained=True) for question in questions)
        return [choice.text for choice in await asyncio.gather(*asked)]


class Found(NamedTuple):
    """What one adapter answered."""

    usual: list[Answered]
    odd: list[Answered]
    base: list[Answered]
    free: list[Answered]
    greedy: list[Greedy]
    golden: list[str]


def confidence(
    question: Question[Any], completion: str, choice: Any, tokenizer: PreTrainedTokenizerBase
) -> float:
    """Return the product of the probabilities of the decided tokens; of all, if they are not those
    that the tokenizer makes of the text.

    Args:
        question: what was asked.
        completion: the full text that follows from the answer.
        choice: of the engine, with ``token_ids`` and ``logprobs``.
        tokenizer: the base's.
    """
    tokens = tokens_of(question, completion, tokenizer)
    begin, end = bisect_left(tokens.starts, len(question.prefilled)), tokens.end
    is_same = tokens.ids[begin:end] == choice.token_ids[: end - begin]
    logprobs = choice.logprobs.token_logprobs
    counted = tokens.decided[begin:end] if is_same else [True] * len(logprobs)
    return math.exp(sum(itertools.compress(logprobs, counted)))


def _question(row: dict[str, Any]) -> Question[Any]:
    task = TASKS[row["task"]]
    return task.question(task.request.model_validate_json(row["request"]))


async def ask(
    url: str,
    lock: Lock,
    name: str,
    test_sets: Path,
    requests: int,
    tokenizer: PreTrainedTokenizerBase,
) -> Found:
    """Ask a running engine.

    Args:
        url: the engine's.
        lock: lock file that names the base and adapters.
        name: of an adapter.
        test_sets: folder with ``<task>/train.jsonl``, ``test.jsonl`` and ``odd.jsonl``.
        requests: number of rows to use from each test set.
        tokenizer: the base's.

    Raises:
        EvaluationError: a file is missing or too short.
    """
    rows, odd = (read_rows(test_sets / name / f"{kind}.jsonl", requests) for kind in KINDS)
    training = read_rows(test_sets / name / "train.jsonl")
    known = frozenset(row["completion"] for row in training)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=600) as client:
        asker = Asker(client, tokenizer)

        async def answers(model: str, rows: Sequence[dict[str, Any]], **how: Any) -> list[Answered]:
            asked = partial(asker.answered, model=model, known=known, **how)
            found: list[Answered] = await tqdm.gather(*map(asked, rows), desc=model)
            return found

        return Found(
            usual=await answers(name, rows),
            odd=await answers(name, odd),
            base=await answers(lock.base.name, rows),
            free=await answers(name, rows, constrained=False),
            greedy=await tqdm.gather(*(asker.greedy(row, name) for row in rows[:COMPARED])),
            golden=await asker.golden(TASKS[name]),
        )


KINDS = ("test", "odd")


def read_rows(path: Path, count: int | None = None) -> list[dict[str, Any]]:
    """Return the first ``count`` rows of a file, or all.

    Raises:
        EvaluationError: the file is missing or too short.
    """
    if not path.exists():
        raise EvaluationError(f"{path} is missing: run `make dataset`")
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    if len(lines) < (count or 1):
        raise EvaluationError(f"{path} has {len(lines)} rows, fewer than {count}")
    return [json.loads(line) for line in lines]


def evaluation(task: Task[Any], found: Found, parity: int, setting: dict[str, str]) -> Evaluation:
    """Return the results of an adapter's answers."""
    new = [answer for answer in found.usual if not answer.is_known]
    bins, error = calibration(found.usual + found.odd)
    shares = {
        "usual lifters": found.usual,
        "usual lifters, answers that training never had": new,
        "odd lifters": found.odd,
        "usual lifters, without constraint": found.free,
        "usual lifters, without adapter": found.base,
    }
    return Evaluation(
        part=task.part,
        setting=setting,
        shares={name: Share.of(answers) for name, answers in shares.items() if answers},
        decisions=decisions(found.usual),
        confusions=confusions(found.usual + found.odd),
        matrices=matrices(found.usual + found.odd),
        calibration=bins,
        calibration_error=error,
        parity=(parity, len(found.greedy)),
    )


def scores(results: Evaluation) -> Scores:
    """Return an evaluation's line in the lock file."""
    shares = results.shares
    usual, odd = shares["usual lifters"], shares["odd lifters"]
    return Scores(
        requests=usual.requests,
        valid=(usual.valid + odd.valid) / 2,
        part=results.part,
        with_adapter=usual.parts,
        without_adapter=shares["usual lifters, without adapter"].parts,
        odd=odd.parts,
    )


def evaluate(
    settings: EngineSettings, test_sets: Path, requests: int
) -> dict[str, tuple[Evaluation, list[str]]]:
    """Return the evaluation and the golden answers of each adapter.

    Args:
        settings: of the engine, which is started with this process's environment.
        test_sets: folder of the dataset.
        requests: number of rows to use from each test set.

    Raises:
        EvaluationError: a test set is missing or too short.
        NotServed: the engine did not start.
        PreflightError, LockError, StartError: it cannot.
    """
    model = check_model(settings)
    dtype = look(settings, model.hidden_size).dtype
    tokenizer = AutoTokenizer.from_pretrained(model.base)
    command = [sys.executable, "-m", "serving.engine"]
    url = f"http://127.0.0.1:{settings.engine_port}"
    with (
        NamedTemporaryFile(suffix=".log") as log,
        served(command, f"{url}/health", Path(log.name)),
    ):
        found = {
            name: asyncio.run(ask(url, model.lock, name, test_sets, requests, tokenizer))
            for name in model.lock.adapters
        }
    setting = {"base": model.lock.base.name, "dtype": dtype, **machine(*PACKAGES)}
    results = {}
    for name, answers in found.items():
        parity = agreeing(model.base, model.adapters / name, dtype, answers.greedy)
        results[name] = evaluation(TASKS[name], answers, parity, setting), answers.golden
    return results


def save(adapters: Path, results: Mapping[str, tuple[Evaluation, list[str]]]) -> None:
    """Write scores and golden answers to the lock file, and each adapter's model card."""
    lock = Lock.load(adapters)
    entries = {}
    for name, entry in lock.adapters.items():
        found, golden = results[name]
        entries[name] = entry.model_copy(update={"scores": scores(found), "golden": golden})
    lock.model_copy(update={"adapters": entries}).save(adapters)
    for name, (found, _) in results.items():
        write_card(adapters / name, TASKS[name], found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", help="base model (default: the demo's)")
    parser.add_argument("--adapters", type=Path, required=True, help="folder with lock.json")
    parser.add_argument("--test-sets", type=Path, default=Path("dataset/data"))
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--scores", type=Path, help="JSON file for them, instead of the lock file")
    arguments = parser.parse_args()
    os.environ |= {"ADAPTERS": str(arguments.adapters), "ENGINE_PORT": str(free_port())}
    os.environ["VLLM_API_KEY"] = ""  # it listens to this machine alone
    if arguments.model:
        os.environ["MODEL"] = arguments.model
    try:
        results = evaluate(load(EngineSettings), arguments.test_sets, arguments.requests)
        if arguments.scores:
            found = {name: scores(result).model_dump() for name, (result, _) in results.items()}
            arguments.scores.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        else:
            save(arguments.adapters, results)
    except (EvaluationError, PreflightError, LockError, StartError, NotServed) as error:
        sys.exit(f"evaluate: {error}")
    for name, (result, _) in results.items():
        score, (equal, compared) = scores(result), result.parity
        print(
            f"{name}: {score.with_adapter:.1%} of each {score.part} right with the adapter "
            f"({score.odd:.1%} of odd lifters), {score.without_adapter:.1%} without; "
            f"{score.valid:.1%} valid of {score.requests} requests of each kind; "
            f"the tokens of {equal} of {compared} are PEFT's"
        )
    low = [n for n, (result, _) in results.items() if scores(result).least < TASKS[n].least_score]
    if low:
        sys.exit(f"evaluate: {', '.join(low)} agrees too rarely with its coach")
    parity = {name: result.parity for name, (result, _) in results.items()}
    other = [name for name, (equal, all_) in parity.items() if equal < LEAST_PARITY * all_]
    if other:
        sys.exit(f"evaluate: {', '.join(other)} is served with other tokens than PEFT's")


if __name__ == "__main__":
    main()
