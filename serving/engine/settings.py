"""What the engine can be told from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

DEMO = Path(__file__).parents[2] / "finetune" / "demo"


class EngineSettings(BaseSettings):
    """Environment variables in capitals: ``MODEL``, ``ADAPTERS``, ``ENGINE_PORT`` and so on."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, frozen=True)

    model: str = str(DEMO / "base")
    """Base model: a folder, or a name on the Hugging Face hub such as
    ``EleutherAI/polyglot-ko-1.3b``."""
    adapters: Path = DEMO / "adapters"
    """Folder with one sub-folder per adapter and their ``lock.json``."""
    engine_drafter: Literal["on", "off"] = "on"
    """Speculative decoding; ``off`` is plain decoding, one pass a token."""
    engine_draft_tokens: int = Field(default=48, ge=1)
    """Tokens a draft may have."""
    engine_host: str = "127.0.0.1"
    """Address the engine listens on."""
    engine_port: int = Field(default=8001, ge=1, le=65535)
    """Port the engine listens on."""
    engine_device: Literal["auto", "gpu"] = "auto"
    """``gpu`` refuses to start without a GPU (as the GPU image does); ``auto`` takes one if it is
    there."""
    engine_data_parallel: int = Field(default=1, ge=1)
    """Copies of the model, each on a GPU of its own, behind one port. vLLM spreads requests over
    them."""
    engine_drain_seconds: int = Field(default=20, ge=1)
    """How long requests may go on after SIGTERM. vLLM answers none of those it drops then: their
    connections stay open until it is killed."""
    engine_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic. ``auto`` takes the model's own on a GPU; on a CPU, bfloat16 where the CPU
    multiplies that itself, else float32 (docs/benchmarks.md)."""
    engine_max_model_len: int = Field(default=2048, ge=256)
    """Longest prompt and answer together, in tokens."""
    engine_max_num_seqs: int = Field(default=128, ge=1)
    """Requests in one batch at most."""
    engine_cpu_kv_cache_gib: int = Field(default=2, ge=1)
    """KV cache on a machine without GPU, in GiB."""
    engine_gpu_memory_share: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes."""
