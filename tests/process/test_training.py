"""From rows to weights: a tiny base and adapter are trained, exported and pass preflight.

A training that is killed goes on.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dataset.generate import rows, write
from finetune.export import export
from finetune.recipe import Lora, NewModel, Recipe
from finetune.record import Record
from finetune.train import run
from serving.engine.preflight import preflight
from serving.lock import Lock
from serving.tasks.registry import TASKS
from tests.unit.finetune.tiny import recipe


def test_a_base_and_adapters_are_trained_exported_and_pass_preflight(tmp_path: Path) -> None:
    for name, task in TASKS.items():
        form, train = tmp_path / f"{name}-form.jsonl", tmp_path / f"{name}.jsonl"
        write(form, rows(task, "train", 32, 1, form=True), 32, coached=False)
        write(train, rows(task, "train", 32, 2), 32, coached=True)
    forms = [tmp_path / f"{name}-form.jsonl" for name in TASKS]
    shape = NewModel(vocabulary=600, hidden=32, layers=1, heads=2)
    base_log = run(recipe(train=forms, out=tmp_path / "base", new_model=shape, steps=3, batch=8))
    for name in TASKS:
        log = run(
            recipe(
                train=[tmp_path / f"{name}.jsonl"],
                validation=tmp_path / f"{name}.jsonl",
                out=tmp_path / "adapters" / name,
                model=str(tmp_path / "base"),
                lora=Lora(rank=4, alpha=8),
                steps=40,
                batch=8,
                learning_rate=1e-2,
            )
        )
        scored = [entry for entry in log["history"] if "eval_all_decided_right" in entry]
        losses = [entry["eval_loss"] for entry in scored]
        assert losses[-1] < losses[0]
        assert base_log["trained_parameters"] > log["trained_parameters"]

    lock = export(str(tmp_path / "base"), "tiny", tmp_path / "adapters", tmp_path / "out")
    assert lock == Lock.load(tmp_path / "out" / "adapters")
    assert preflight(tmp_path / "out" / "base", tmp_path / "out" / "adapters", lock) == 4
    weights = load_file(tmp_path / "out" / "adapters" / "rate" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert (tmp_path / "out" / "adapters" / "rate" / "loss.png").stat().st_size > 5000

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "base")
    ids = AutoTokenizer.from_pretrained(tmp_path / "out" / "base")(
        "5/3/1 프로그램", return_tensors="pt"
    )
    with torch.no_grad():
        plain = base(**ids).logits
        adapted = PeftModel.from_pretrained(base, tmp_path / "out" / "adapters" / "rate")
        assert not torch.allclose(plain, adapted(**ids).logits)


def start(recipe: Recipe, file: Path) -> subprocess.Popen[bytes]:
    write_recipe(recipe, file)
    return subprocess.Popen([sys.executable, "-m", "finetune.train", str(file)])


def write_recipe(recipe: Recipe, file: Path) -> None:
    fields = {name: value for name, value in recipe.model_dump(mode="json").items() if value}
    file.write_text(yaml.safe_dump(fields))


def kill_at(process: subprocess.Popen[bytes], path: Path) -> None:
    """Kill a training as soon as ``path`` exists."""
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def losses(history: list[dict[str, Any]]) -> dict[int, float]:
    return {one["step"]: one["eval_loss"] for one in history if "eval_loss" in one}


def adapter(folder: Path, name: str, dropout: float = 0, **fields: object) -> Recipe:
    """A recipe for an adapter, of rows with and without a tail, whose base is trained first."""
    task = next(iter(TASKS))
    file = folder / "rows.jsonl"
    if not file.exists():
        write(file, rows(TASKS[task], "train", 64, 2), 64, coached=True)
        shape = NewModel(vocabulary=600, hidden=32, layers=1, heads=2)
        run(recipe(train=[file], out=folder / "base", new_model=shape, steps=3, batch=8))
    values: dict[str, object] = {
        "train": [file],
        "validation": file,
        "out": folder / name / task,
        "model": str(folder / "base"),
        "lora": Lora(rank=4, alpha=8, dropout=dropout),
        "steps": 40,
        "batch": 8,
        "learning_rate": 1e-2,
        "tail_share": 0.5,
    }
    return recipe(**values | fields)


def test_a_training_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """When it is killed again, in the middle of writing a checkpoint too."""
    killed, whole = (adapter(tmp_path, name, dropout=0.1) for name in ("killed", "whole"))
    for moment in ("checkpoint-4/trainer_state.json", "checkpoint-12", "checkpoint-20"):
        kill_at(start(killed, tmp_path / "recipe.yaml"), killed.out / moment)
        assert not Record.load(killed.out).is_finished
    log = run(killed)
    assert log["first_step"] > 0
    assert losses(log["history"]) == pytest.approx(losses(run(whole)["history"]), abs=1e-4)
    assert Record.load(killed.out).is_finished
    assert not [*killed.out.glob("checkpoint-*")]


def test_passes_devices_and_checkpointing_train_the_same(tmp_path: Path) -> None:
    """Rows of a pass differ in length and in what they weigh."""
    whole = run(adapter(tmp_path, "whole", precision="fp32"))
    parted = adapter(tmp_path, "parted", precision="fp32", device_batch=2, checkpointing=True)
    assert losses(run(parted)["history"]) == pytest.approx(losses(whole["history"]), rel=1e-3)

    spread = adapter(tmp_path, "spread", precision="fp32", device_batch=2)
    write_recipe(spread, tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    train = [*command, "-m", "finetune.train", str(tmp_path / "recipe.yaml")]
    subprocess.run(train, check=True, timeout=240, env=environment)
    history = json.loads((spread.out / "log.json").read_text())["history"]
    assert losses(history) == pytest.approx(losses(whole["history"]), rel=1e-3)


def test_a_dry_run_measures_and_leaves_nothing(tmp_path: Path) -> None:
    write_recipe(adapter(tmp_path, "dry", device_batch=4), tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "finetune.train", str(tmp_path / "recipe.yaml"), "steps=100"]
    done = subprocess.run([*command, "--dry-run"], check=True, capture_output=True, text=True)
    said = dict(re.findall(r"^(\w+)  +(.*)$", done.stdout, re.MULTILINE))
    assert said["parameters"] == "2,048 trained of 53,216"
    assert said["steps"] == "100 of 8 rows: 12.50 epochs"
    assert said["passes"].startswith("2 a step; ")
    assert 0.2 < float(said["memory"].split()[0]) < 4
    assert re.fullmatch("about [0-9]+ minutes", said["time"])
    assert not (tmp_path / "dry").exists()
