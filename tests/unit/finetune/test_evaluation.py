"""What an evaluation computes from answers, and the model card made of it."""

import math
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from finetune.card import write_card
from finetune.data import tokens_of
from finetune.evaluate import Found, confidence, evaluation, scores
from finetune.evaluation import Answered, Share, calibration, confusions, decisions, matrices
from finetune.parity import Greedy
from serving.engine.settings import DEMO
from serving.language.fields import Values
from serving.tasks.base import Task
from serving.tasks.registry import TASKS


def answer(
    *given: Values | None, confidence: float = 0.95, is_valid: bool = True, is_known: bool = True
) -> Answered:
    """Of two days; the coach wants a three and a curl on each."""
    wanted = [{"mon.sets": 3, "mon.name": "컬"}, {"tue.sets": 3, "tue.name": "컬"}]
    parts = None if None in given else [one for one in given if one]
    return Answered(wanted, parts, is_valid, confidence, is_known)


RIGHT = answer({"mon.sets": 3, "mon.name": "컬"}, {"tue.sets": 3, "tue.name": "컬"})
WRONG = {"tue.sets": 4, "tue.name": "딥스"}
HALF = answer({"mon.sets": 3, "mon.name": "컬"}, WRONG, confidence=0.5)
BROKEN = answer(None, confidence=0.1, is_valid=False)


def test_shares_count_valid_parts_and_whole_answers() -> None:
    share = Share.of([RIGHT, HALF, HALF, BROKEN])
    assert (share.requests, share.valid, share.parts, share.exact) == (4, 0.75, 0.5, 0.25)


def test_decisions_are_counted_one_by_one_the_worst_first() -> None:
    shares = decisions([RIGHT, HALF, HALF, BROKEN])
    assert list(shares.items()) == [
        ("tue.sets", 0.25),
        ("tue.name", 0.25),
        ("mon.sets", 0.75),
        ("mon.name", 0.75),
    ]


def test_confusions_name_what_was_taken_for_what() -> None:
    first, second = confusions([RIGHT, HALF, HALF, BROKEN])
    assert {first.decision: (first.wanted, first.given), second.decision: second.given} == {
        "tue.sets": ("3", "4"),
        "tue.name": "딥스",
    }
    assert first.times == second.times == 2


def test_matrices_have_the_numbers_only() -> None:
    assert matrices([RIGHT, HALF, BROKEN]) == {
        "tue.sets": [(3, 3, 1), (3, 4, 1)],
        "mon.sets": [(3, 3, 2)],
    }


def test_calibration_compares_confidence_with_truth() -> None:
    bins, error = calibration([RIGHT, RIGHT, HALF, BROKEN])
    assert [(one.answers, one.exact) for one in bins] == [(1, 0), (1, 0), (2, 1)]
    assert error == pytest.approx((0.1 + 0.5 + 2 * 0.05) / 4)
    assert calibration([RIGHT._replace(confidence=1.0)])[0][0].confidence == 1


def test_a_card_tells_what_was_found(tmp_path: Path) -> None:
    new = HALF._replace(is_known=False)
    found = Found([RIGHT, new], [HALF], [BROKEN, BROKEN], [HALF], [Greedy([1], [2])] * 3, ["x"])
    task = next(iter(TASKS.values()))
    results = evaluation(task, found, 2, {"base": "tiny", "dtype": "float32"})
    assert results.shares["usual lifters, answers that training never had"].requests == 1
    assert results.shares["usual lifters, without adapter"].valid == 0
    score = scores(results)
    assert (score.with_adapter, score.odd, score.without_adapter, score.valid) == (0.75, 0.5, 0, 1)

    write_card(tmp_path, task, results)
    text = (tmp_path / "README.md").read_text()
    assert f"# {task.name}: " in text and "for 2 of 3 prompts" in text and "딥스" in text
    assert type(results).model_validate_json((tmp_path / "evaluation.json").read_text()) == results
    assert (tmp_path / "evaluation.png").stat().st_size > 5000


def test_a_card_without_a_wrong_decision_says_so(tmp_path: Path) -> None:
    found = Found([RIGHT], [RIGHT], [BROKEN], [RIGHT], [Greedy([1], [2])], ["x"])
    task = next(iter(TASKS.values()))
    write_card(tmp_path, task, evaluation(task, found, 1, {"base": "tiny"}))
    assert "No decision was another than the coach's." in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_confidence_is_of_the_decided_tokens(task: Task[Any]) -> None:
    """Of all, if the engine wrote the text in other tokens."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "base")
    question = task.question(task.examples[0])
    output = question.output
    completion = output.text(output.sample(Random(1)))
    ids, starts, decided = tokens_of(question, completion, tokenizer)
    begin, end = starts.index(len(question.prefilled)), len(ids) - decided[::-1].index(True)
    written = [*ids[begin:end], tokenizer.eos_token_id]
    for tokens, counted in ((written, sum(decided)), ([5, *written], len(written) + 1)):
        logprobs = SimpleNamespace(token_logprobs=[-0.01] * len(tokens))
        choice = SimpleNamespace(token_ids=tokens, logprobs=logprobs)
        found = confidence(question, completion, choice, tokenizer)
        assert found == pytest.approx(math.exp(-0.01 * counted))
    assert 0 < sum(decided) < len(written)
