"""The list of models tells what each adapter must answer.

vLLM 0.32 lists an adapter's name and folder. The lock file beside it has the golden answers, which
a gateway on another machine cannot read.
"""

from functools import cache
from pathlib import Path

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.protocol import ModelList

from serving.lock import Lock, LockError

vllm_show_available_models = OpenAIServingModels.show_available_models


async def show_available_models(models: OpenAIServingModels) -> ModelList:
    """Replace ``OpenAIServingModels.show_available_models``: an adapter's card has ``golden``."""
    found = await vllm_show_available_models(models)
    for card in found.data:
        if card.parent and card.root:
            setattr(card, "golden", golden(Path(card.root)))  # noqa: B010 (a field beyond vLLM's)
    return found


@cache
def golden(adapter: Path) -> list[str] | None:
    """Return the golden answers of the adapter in this folder; None if it was never evaluated."""
    try:
        entry = Lock.load(adapter.parent).adapters.get(adapter.name)
    except LockError:
        return None
    return entry.golden if entry else None
