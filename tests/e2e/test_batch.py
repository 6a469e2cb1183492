"""Batches on the real engine."""

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from loadtests.batch import one_round
from serving.tasks.registry import TASKS
from tests.kit.asking import ask_all
from tests.kit.stack import Stack

LEAST, MOST_TIMES = 0.5, 4.0
"""Half a minute of a machine that has others to serve."""


@pytest.mark.parametrize("task", TASKS)
def test_a_file_s_answers_are_the_routes(stack: Stack, task: str, tmp_path: Path) -> None:
    chance = random.Random(3)
    asked = [TASKS[task].draw(chance) for _ in range(60)]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(one.model_dump_json() + "\n" for one in asked))
    client = Path(sys.executable).with_name("routine531")
    command = [str(client), "--url", stack.url, "batch", str(source), str(target), "--task", task]
    with subprocess.Popen(command) as batch:
        routes = asyncio.run(ask_all(stack.url, asked, at_once=2))  # lines stand still for them
        assert batch.wait(timeout=120) == 0
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    found = {int(one["custom_id"]): one["response"]["body"] for one in lines}
    assert [found[number] for number in range(1, len(asked) + 1)] == [*map(json.loads, routes)]


def test_a_batch_gets_what_others_leave_and_costs_them_little(stack: Stack) -> None:
    found = uvloop.run(one_round(stack.url, seconds=6))
    assert found["batch"] > LEAST * found["best"], found
    assert found["p95 beside"] < MOST_TIMES * found["p95"], found
