"""Engine counters, read before and after a measurement."""

from __future__ import annotations

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

Counters = dict[str, float]
"""Values by exposition-format name (``vllm:generation_tokens_total``), summed over labels."""


async def engine_counters(engine_url: str) -> Counters:
    """Read the counters of an engine and its drafter."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{engine_url}/metrics") as response,
    ):
        text = await response.text()
    found: Counters = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(("vllm:", "routine_")):
                found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def difference(after: Counters, before: Counters) -> Counters:
    """Return the increase of each counter."""
    return {name: after[name] - before.get(name, 0) for name in after}
