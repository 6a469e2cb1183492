"""The engine's list of models tells each adapter's golden answers, as its lock file has them."""

import json
from pathlib import Path

import msgspec
import pytest
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.protocol import ModelCard, ModelList
from vllm.lora.request import LoRARequest

from serving.engine.settings import DEMO
from serving.gateway.engine import Model, _Models
from serving.lock import Lock
from serving.tasks.registry import TASKS
from serving.vllm_plugin.patches.cards import golden, show_available_models

ADAPTERS = DEMO / "adapters"


class Bases:
    async def show_available_models(self) -> ModelList:
        return ModelList(data=[ModelCard(id="demo", root="base")])


async def listed(*adapters: Path) -> dict[str, Model]:
    """What the gateway reads of vLLM's list."""
    models = OpenAIServingModels.__new__(OpenAIServingModels)
    models.registry = Bases()  # type: ignore[assignment]
    models.base_model_paths = [BaseModelPath(name="demo", model_path="base")]
    models.lora_requests = {
        path.name: LoRARequest(path.name, number, str(path))
        for number, path in enumerate(adapters, 1)
    }
    body = (await show_available_models(models)).model_dump_json()
    return {model.name: model for model in msgspec.json.decode(body, type=_Models).data}


async def test_each_adapter_s_card_has_its_golden_answers() -> None:
    models = await listed(*(ADAPTERS / name for name in TASKS))
    assert models["demo"].golden is None
    for name, task in TASKS.items():
        answers = models[name].golden
        assert answers == Lock.load(ADAPTERS).adapters[name].golden
        assert answers and len(answers) == len(task.examples + task.edges)


@pytest.mark.parametrize("text", [None, "{", "{}"])
async def test_without_a_lock_file_there_are_none(tmp_path: Path, text: str | None) -> None:
    if text:
        (tmp_path / "lock.json").write_text(text)
    assert (await listed(tmp_path / "rate"))["rate"].golden is None


async def test_an_adapter_that_was_not_evaluated_has_none(tmp_path: Path) -> None:
    lock = json.loads((ADAPTERS / "lock.json").read_text())
    lock["adapters"]["rate"]["golden"] = None
    (tmp_path / "lock.json").write_text(json.dumps(lock))
    assert golden(tmp_path / "rate") is None
    assert golden(tmp_path / "month")
    assert golden(tmp_path / "third") is None
