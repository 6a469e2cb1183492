"""From rows to weights: a tiny base and adapter are trained, exported and pass preflight."""

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dataset.generate import rows, write
from finetune.export import export
from finetune.recipe import Lora, NewModel
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
