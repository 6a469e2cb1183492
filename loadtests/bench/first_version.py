"""Serve as the first version did: Hugging Face ``generate`` with PEFT behind FastAPI.

Handles one request at a time, without a constraint, and decodes the whole answer. Serves
``/v1/completions``, so the benchmark can query it like vLLM.
"""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from peft import PeftModel
from pydantic import BaseModel
from transformers import AutoModelForCausalLM, AutoTokenizer


class Asked(BaseModel):
    """Supported fields of a completions request."""

    model: str
    prompt: str
    max_tokens: int


def create_app(base: Path, adapters: Path, dtype: str) -> FastAPI:
    """Create the service, with the base and every adapter in ``adapters`` loaded."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    for folder in sorted(path.parent for path in adapters.glob("*/adapter_config.json")):
        if isinstance(model, PeftModel):
            model.load_adapter(folder, folder.name)
        else:
            model = PeftModel.from_pretrained(model, folder, folder.name)
    model.to(device).eval()
    app, one_at_a_time = FastAPI(), asyncio.Lock()

    def generate(asked: Asked) -> torch.Tensor:
        model.set_adapter(asked.model)
        prompt = tokenizer(asked.prompt, return_tensors="pt").to(device)
        with torch.inference_mode():
            made = model.generate(
                **prompt, do_sample=False, use_cache=True, max_new_tokens=asked.max_tokens
            )
        tokens: torch.Tensor = made[0, prompt["input_ids"].shape[1] :]
        return tokens

    @app.get("/health")
    async def health() -> None:
        return None

    @app.post("/v1/completions")
    async def completions(asked: Asked) -> dict[str, Any]:
        async with one_at_a_time:
            tokens = await asyncio.to_thread(generate, asked)
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        return {"choices": [{"text": text}], "usage": {"completion_tokens": len(tokens)}}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--adapters", type=Path, required=True)
    parser.add_argument("--dtype", required=True, help="auto, float32, bfloat16 or float16")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    app = create_app(arguments.base, arguments.adapters, arguments.dtype)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
