"""The engine's tokens are compared with PEFT's, whatever their number."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune.parity import ROWS, Greedy, agreeing
from serving.engine.settings import DEMO

ADAPTER = DEMO / "adapters" / "rate"


@pytest.fixture(scope="module")
def written() -> list[Greedy]:
    """Texts of PEFT's own, of several lengths, more than a pass has."""
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(DEMO / "base", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, ADAPTER, autocast_adapter_dtype=False).eval()
    found = []
    for number in range(ROWS + 3):
        prompt = torch.arange(5, 20 + number)[None]
        ids = model.generate(  # type: ignore[no-untyped-call]
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4 + number,
            do_sample=False, pad_token_id=0, eos_token_id=0,
        )  # fmt: skip
        found.append(Greedy(prompt[0].tolist(), ids[0, prompt.shape[1] :].tolist()))
    return found


def test_what_peft_writes_agrees(written: list[Greedy]) -> None:
    assert agreeing(DEMO / "base", ADAPTER, "float32", written) == len(written)


@pytest.mark.parametrize("place", [0, -1])
def test_one_other_token_is_found(written: list[Greedy], place: int) -> None:
    spoilt = list(written)
    for row in (0, -1):
        tokens = list(spoilt[row].tokens)
        tokens[place] = (tokens[place] + 1) % 1000
        spoilt[row] = Greedy(spoilt[row].prompt, tokens)
    assert agreeing(DEMO / "base", ADAPTER, "float32", spoilt) == len(written) - 2


def test_another_adapter_is_found(written: list[Greedy]) -> None:
    other = ADAPTER.with_name("month")
    assert agreeing(DEMO / "base", other, "float32", written) < len(written)
