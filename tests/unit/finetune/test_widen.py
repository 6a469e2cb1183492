"""A widened model answers token for token as the one it was made from."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from dataset.generate import SOURCES
from finetune.widen import Size, main, widen_export
from serving.engine.preflight import preflight
from serving.engine.settings import DEMO
from serving.lock import Lock
from serving.tasks.registry import TASKS

SMALL = Size(times=2, layers=5, vocabulary=1100)
FULL_SIZE_PARAMETERS = 1_331_810_304
"""Of EleutherAI/polyglot-ko-1.3b."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wide") / "wide"
    widen_export(DEMO, out, SMALL)
    return out


def answers(folder: Path, adapter: str | None, prompts: list[str]) -> Iterator[list[int]]:
    """Greedy, in float32; without adapter if ``adapter`` is None."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, folder / "adapters" / adapter)
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt")
        made = model.generate(**ids, do_sample=False, max_new_tokens=60, use_cache=True)
        yield made[0, ids["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("adapter", [None, *TASKS])
def test_answers_are_token_for_token_the_same(adapter: str | None, wide: Path) -> None:
    asked = itertools.islice(SOURCES[adapter or "rate"].requests(71), 2)
    prompts = [TASKS[adapter or "rate"].question(request).prompt for request in asked]
    pairs = list(zip(answers(DEMO, adapter, prompts), answers(wide, adapter, prompts), strict=True))
    assert all(one == other for one, other in pairs)
    assert len({tuple(one) for one, _ in pairs}) > 1, "the prompts must make a difference"


def test_every_weight_is_used(wide: Path) -> None:
    """Layers beyond the source's are computed like the others, though they add nothing."""
    state = AutoModelForCausalLM.from_pretrained(wide / "base").state_dict()
    assert not state["gpt_neox.layers.4.attention.dense.weight"].any()
    assert state["gpt_neox.layers.4.attention.query_key_value.weight"].any()
    assert state["gpt_neox.layers.3.attention.dense.weight"].any()


def test_what_is_written_can_be_served(wide: Path) -> None:
    lock = Lock.load(wide / "adapters")
    assert lock.base.name == "wide"
    assert preflight(wide / "base", wide / "adapters", lock) == 32
    assert all(entry.scores is None for entry in lock.adapters.values())


def test_the_default_size_is_that_of_polyglot_ko() -> None:
    size, config = Size(), AutoConfig.from_pretrained(DEMO / "base")
    config.hidden_size *= size.times
    config.intermediate_size *= size.times
    config.num_attention_heads *= size.times
    config.num_hidden_layers, config.vocab_size = size.layers, size.vocabulary
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    assert sum(p.numel() for p in model.parameters()) == FULL_SIZE_PARAMETERS
    assert (config.hidden_size, config.num_attention_heads) == (2048, 16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--source", "nowhere"], "lock.json is missing"),
        (["--source", str(DEMO), "--layers", "2"], "smaller than the model"),
        (["--source", str(DEMO), "--vocabulary", "100"], "smaller than the model"),
    ],
)
def test_what_cannot_be_widened_ends_with_one_line(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["widen", "--out", str(tmp_path / "out"), *options])
    with pytest.raises(SystemExit, match=words) as caught:
        main()
    assert "\n" not in str(caught.value)
