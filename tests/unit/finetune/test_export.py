"""What export refuses, each in one line that names it, and what it keeps."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.export import ExportError, export
from finetune.recipe import Lora, NewModel
from finetune.record import RECORD, Record, RecordError, record_of
from serving.adapter import AdapterError
from serving.engine.settings import DEMO
from serving.lock import CONFIG, WEIGHTS, Lock
from serving.tasks.registry import TASKS
from tests.unit.finetune.tiny import recipe

NAME = next(iter(TASKS))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A base and an adapter as two trainings leave them."""
    base, adapter = tmp_path / "base", tmp_path / "adapters" / NAME
    shutil.copytree(DEMO / "base", base)
    shutil.copytree(DEMO / "adapters" / NAME, adapter)
    shape = NewModel(vocabulary=600, hidden=32, layers=1, heads=2)
    for made in (
        recipe(train=[], out=base, new_model=shape),
        recipe(train=[], out=adapter, model=str(base), lora=Lora(rank=4, alpha=8)),
    ):
        record_of(made).model_copy(update={"is_finished": True}).save(made.out)
    configure(adapter, base_model_name_or_path=str(base))
    return tmp_path


def configure(adapter: Path, **fields: object) -> None:
    path = adapter / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def record(folder: Path, **fields: object) -> None:
    Record.load(folder).model_copy(update=fields).save(folder)


def weights(adapter: Path, change: Callable[[str, Tensor], Tensor | None]) -> None:
    found = {name: change(name, t) for name, t in load_file(adapter / WEIGHTS).items()}
    save_file({name: t for name, t in found.items() if t is not None}, adapter / WEIGHTS)


def lora_b(change: Callable[[Tensor], Tensor | None]) -> Callable[[Path], None]:
    """Change every lora_B."""
    return lambda adapter: weights(adapter, lambda n, t: change(t) if "lora_B" in n else t)


def without_one(adapter: Path) -> None:
    name = sorted(load_file(adapter / WEIGHTS))[-1]
    weights(adapter, lambda n, t: None if n == name else t)


def unnamed(adapter: Path) -> None:
    path = adapter / CONFIG
    fields = json.loads(path.read_text())
    del fields["base_model_name_or_path"]
    path.write_text(json.dumps(fields))


def configuration(**fields: object) -> Callable[[Path], None]:
    return lambda adapter: configure(adapter, **fields)


def recorded(**fields: object) -> Callable[[Path], None]:
    return lambda adapter: record(adapter, **fields)


def written(file: str, text: str) -> Callable[[Path], Any]:
    return lambda adapter: (adapter / file).write_text(text)


def removed(file: str) -> Callable[[Path], None]:
    return lambda adapter: (adapter / file).unlink()


def test_what_was_trained_is_exported(runs: Path) -> None:
    lock = export(str(runs / "base"), "demo", runs / "adapters", runs / "out")
    assert lock == Lock.load(runs / "out" / "adapters")
    assert lock.adapters.keys() == {NAME}
    assert not (runs / "out" / "base" / RECORD).exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (recorded(is_finished=False), "has not finished; run it again"),
        (removed(RECORD), "training.json is missing"),
        (written(RECORD, ""), "no record of a training"),
        (written(RECORD, "[]"), "no record of a training"),
        (written(RECORD, '{"recipe": {}}'), "no record of a training"),
        (recorded(base={}), "another base"),
        (recorded(base={"config.json": "0"}), "another base .*: config.json differs"),
        (recorded(base={"model.safetensors": "0"}), "model.safetensors differs"),
        (recorded(base={"tokenizer.json": "0"}), "tokenizer.json differs"),
        (recorded(base={"model-2.safetensors": "0"}), "model-2.safetensors differs"),
        (recorded(prompt="0"), "another prompt or output"),
        (recorded(prompt=None), "another prompt or output"),
        (recorded(output="0"), "another prompt or output"),
        (recorded(recipe={}), "and the training None"),
        (unnamed, "names the base None"),
        (configuration(base_model_name_or_path="EleutherAI/polyglot-ko-5.8b"), "names the base"),
        (configuration(base_model_name_or_path=None), "names the base None"),
        (removed("loss.png"), "loss.png is missing"),
        (removed(CONFIG), "adapter_config.json is missing"),
        (written(CONFIG, "[]"), "adapter_config.json"),
        (written(CONFIG, "{"), "adapter_config.json"),
        (written(WEIGHTS, "no weights"), "no safetensors file"),
        (lora_b(lambda t: t * torch.nan), "not finite"),
        (lora_b(lambda t: t + torch.inf), "not finite"),
        (lora_b(torch.zeros_like), "every lora_B is zero"),
        (lora_b(lambda t: None), "is missing"),
        (lora_b(lambda t: t.to(torch.int8)), "is I8"),
        (lora_b(lambda t: t[:, :-1].contiguous()), "has shape"),
        (without_one, "is missing"),
        (configuration(r=None), "r is None"),
        (configuration(lora_alpha=None), "lora_alpha is None"),
        (configuration(lora_alpha=0), "lora_alpha is 0"),
        (configuration(use_dora=True), "use_dora is True"),
        (configuration(bias="all"), "bias is 'all'"),
        (configuration(modules_to_save=["embed_out"]), "modules_to_save"),
        (configuration(peft_type="PREFIX_TUNING"), "peft_type is 'PREFIX_TUNING'"),
        (configuration(target_modules=["q_proj"]), "target_modules has 'q_proj'"),
        (configuration(target_modules=["dense"]), "for no target module"),
    ],
)
def test_what_is_not_right_is_refused_in_one_line(
    runs: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(runs / "adapters" / NAME)
    with pytest.raises((ExportError, RecordError, AdapterError), match=words) as caught:
        export(str(runs / "base"), "demo", runs / "adapters", runs / "out")
    assert "\n" not in str(caught.value)
    assert not (runs / "out").exists()


def test_an_adapter_of_another_base_of_the_same_shape_is_refused(runs: Path) -> None:
    shutil.copytree(runs / "base", runs / "other")
    path = runs / "other" / "model.safetensors"
    save_file({name: t + 1 for name, t in load_file(path).items()}, path)
    with pytest.raises(ExportError, match=r"model\.safetensors differs"):
        export(str(runs / "other"), "demo", runs / "adapters", runs / "out")


def test_a_base_that_is_not_finished_is_refused(runs: Path) -> None:
    record(runs / "base", is_finished=False)
    with pytest.raises(ExportError, match="base: its training has not finished"):
        export(str(runs / "base"), "demo", None, runs / "out")


def test_a_base_of_another_architecture_is_refused(runs: Path) -> None:
    config = runs / "base" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "llama"}))
    with pytest.raises(AdapterError, match="llama"):
        export(str(runs / "base"), "demo", runs / "adapters", runs / "out")


def test_exported_weights_that_changed_are_refused(runs: Path) -> None:
    out = runs / "out"
    export(str(runs / "base"), "demo", runs / "adapters", out)
    configure(out / "adapters" / NAME, lora_alpha=1)
    with pytest.raises(ExportError, match=r"is not what .*lock\.json names"):
        export(str(out / "base"), "demo", out / "adapters", runs / "again")


def test_export_names_what_is_missing(tmp_path: Path) -> None:
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    with pytest.raises(RecordError, match="neither a folder"):
        export("nobody/nothing", "x", adapters, tmp_path / "out")
    with pytest.raises(ExportError, match="no trained adapter"):
        export(str(DEMO / "base"), "x", adapters, tmp_path / "out")
    (adapters / "other").mkdir()
    (adapters / "other" / "adapter_model.safetensors").touch()
    with pytest.raises(ExportError, match="no task of that name"):
        export(str(DEMO / "base"), "x", adapters, tmp_path / "out")


def test_exporting_one_adapter_leaves_the_others_and_their_lock_as_they_are(tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = export(str(DEMO / "base"), "demo", DEMO / "adapters", out)
    assert set(whole.adapters) == set(TASKS)
    first, *others = TASKS
    before = (out / "adapters" / others[0] / "adapter_model.safetensors").read_bytes()
    one = export(str(out / "base"), "demo", DEMO / "adapters" / first, out)  # the base onto itself
    assert one == whole == Lock.load(out / "adapters")
    assert (out / "adapters" / others[0] / "adapter_model.safetensors").read_bytes() == before


def test_exporting_onto_itself_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    lock = export(str(DEMO / "base"), "demo", DEMO / "adapters", out)
    assert export(str(out / "base"), "demo", out / "adapters", out) == lock


def test_adapters_of_another_base_are_not_kept(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    export(str(DEMO / "base"), "demo", DEMO / "adapters", out)
    shutil.copytree(DEMO / "base", other)
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    assert export(str(other), "demo", None, out).adapters == {}
