"""The Task 1 coach's anchors and legality, and the files made with the coaches."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from dataset.coaches.rate import Strength, coach_rate, strength
from dataset.generate import FILES, SOURCES, RowError, rows, split_of, validate_row, write
from dataset.profiles import ODD, USUAL, Mix, profiles
from serving.tasks.base import Task
from serving.tasks.profile import (
    GENDERS,
    LIFTS,
    MAX_KG,
    MIN_KG,
    PUBLISHED,
    STANDARD_KG,
    Profile,
    profile_of,
)
from serving.tasks.rate import answer as rate
from serving.tasks.registry import TASKS
from tests.kit.oracle import heavy

ANCHORS = [
    (profile_of(1, "남성", 4, (30, 30, 30, 30)), [45, 10, 5, 50]),
    (PUBLISHED[0], [55, 10, 5, 50]),
    (PUBLISHED[1], [65, 5, 10, 40]),
    (PUBLISHED[2], [55, 10, 5, 50]),
]


each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@pytest.mark.parametrize(("profile", "rates"), ANCHORS)
def test_the_coach_gives_the_anchor_rows(profile: Profile, rates: list[int]) -> None:
    assert list(coach_rate(profile).values()) == rates


def every_case() -> list[Profile]:
    """Every experience, sex, purpose, and set of lifts that reach the standard."""
    found = []
    for experience, gender, purpose in itertools.product(range(1, 6), GENDERS, range(1, 7)):
        for reached in itertools.product((False, True), repeat=4):
            bench, squat, dead, press = (
                kg if hit else kg - 2.5
                for kg, hit in zip(STANDARD_KG[gender].values(), reached, strict=True)
            )
            found.append(profile_of(experience, gender, purpose, (bench, squat, dead, press)))
    return found


@pytest.mark.parametrize("mix", [USUAL, ODD])
def test_no_set_is_too_heavy_and_no_deload_a_burden_for_ten_thousand_lifters(mix: Mix) -> None:
    for profile in itertools.islice(profiles(20_000, mix), 10_000):
        assert heavy(list(coach_rate(profile).values())) == [], profile


def test_every_answer_of_the_coach_is_legal_and_almost_every_option_is_used() -> None:
    used: dict[str, set[int]] = {}
    for profile in every_case():
        answer = coach_rate(profile)
        rate.OUTPUT.text(answer)  # raises where a rate is no option
        for name, value in answer.items():
            used.setdefault(name, set()).add(value)
    unused = {d.path: {o.value for o in d.options} - used[d.path] for d in rate.OUTPUT.decisions}
    assert {path: options for path, options in unused.items() if options} == {
        "init_weight_rate": {70, 75}  # with the smallest increases alone; the coach wants larger
    }


@pytest.mark.parametrize("field", ["experience", "gender", "purpose", "rm_weight"])
def test_every_input_matters(field: str) -> None:
    by_rest: dict[str, set[str]] = {}
    lifts = [(30, 40, 50, 20), (60, 90, 100, 40), (150, 200, 220, 100)]
    for e, g, p, kg in itertools.product(range(1, 6), GENDERS, range(1, 7), lifts):
        profile = profile_of(e, g, p, kg)
        rest = json.dumps(profile.model_dump(exclude={field}))
        by_rest.setdefault(rest, set()).add(json.dumps(coach_rate(profile)))
    assert any(len(answers) > 1 for answers in by_rest.values())


@pytest.mark.parametrize("lift", LIFTS)
def test_every_lift_matters(lift: str) -> None:
    weak = next(name for name in LIFTS if name != lift)
    kg = STANDARD_KG["남성"] | {weak: MIN_KG}
    outcomes = set()
    for weight in (MIN_KG, MAX_KG):
        lifts = kg | {lift: weight}
        bench, squat, dead, press = (lifts[name] for name in LIFTS)
        outcomes.add(strength(profile_of(3, "남성", 1, (bench, squat, dead, press))))
    assert outcomes == {Strength.MIXED, Strength.STRONG}


def test_profiles_are_seeded_and_cover_the_input_space() -> None:
    sample = list(itertools.islice(profiles(7), 5000))
    assert sample[:50] == list(itertools.islice(profiles(7), 50))
    assert sample[:50] != list(itertools.islice(profiles(8), 50))
    assert {p.experience for p in sample} == set(range(1, 6))
    assert {p.purpose for p in sample} == set(range(1, 7))
    squats = [p.rm_weight.squat for p in sample]
    assert min(squats) < 15 and max(squats) > 500
    assert all(kg % 2.5 == 0 for kg in squats)


@each_task
def test_splits_share_no_prompt_and_rows_load_with_datasets(
    task: Task[Any], tmp_path: Path
) -> None:
    prompts: dict[str, set[str]] = {}
    answers: dict[str, set[str]] = {}
    for file, form in (("train", True), *((name, False) for name in FILES)):
        path = tmp_path / f"{file}{form}.jsonl"
        write(path, rows(task, file, 200, 3, form), 200, coached=not form)
        loaded = load_dataset("json", data_files=str(path), cache_dir=str(tmp_path))["train"]
        assert {"prompt", "completion"} <= set(loaded.column_names)
        assert len(set(loaded["prompt"])) == 200
        split = "test" if file == "odd" else file
        requests = map(task.request.model_validate_json, loaded["request"])
        assert {split_of(task, request) for request in requests} == {split}
        prompts.setdefault(split, set()).update(loaded["prompt"])
        if SOURCES[task.name].held_out == "answer" and not form:
            answers.setdefault(split, set()).update(loaded["completion"])
    for one, other in itertools.combinations(prompts.values(), 2):
        assert not one & other
    for one, other in itertools.combinations(answers.values(), 2):
        assert not one & other


@each_task
def test_form_rows_say_nothing_about_the_coach(task: Task[Any]) -> None:
    agree = 0
    for row in rows(task, "train", 500, 4, form=True):
        request = task.request.model_validate_json(row["request"])
        agree += task.question(request).output.parse(row["completion"]) == SOURCES[task.name].coach(
            request
        )
    assert agree < 25


@each_task
def test_a_wrong_row_is_refused(task: Task[Any]) -> None:
    row, other = next(rows(task, "train", 1, 5)), next(rows(task, "train", 1, 5, form=True))
    request = task.request.model_validate_json(row["request"])
    assert validate_row(row, True) == SOURCES[task.name].coach(request)
    assert validate_row(other, False)
    for wrong in (
        {**row, "prompt": row["prompt"] + " "},
        {**row, "completion": other["completion"]},
    ):
        with pytest.raises(RowError):
            validate_row(wrong, True)
    with pytest.raises(ValueError, match="not an output"):
        validate_row({**row, "completion": row["completion"] + " "}, True)


def test_running_out_of_distinct_prompts_is_an_error_not_a_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = replace(SOURCES["rate"], requests=lambda seed, mix=USUAL: itertools.cycle(PUBLISHED))
    monkeypatch.setitem(SOURCES, "rate", few)
    monkeypatch.setattr("dataset.generate.MOST_REPEATS", 1000)
    with pytest.raises(RowError, match="distinct prompts for train, fewer than 6"):
        list(rows(TASKS["rate"], "train", 6, 1))
