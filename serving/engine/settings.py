"""Engine settings, read from the environment."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.process import is_loopback

DEMO = Path(__file__).parents[2] / "finetune" / "demo"


class EngineSettings(BaseSettings):
    """Read from upper-case environment variables: ``MODEL``, ``ADAPTERS``, ``ENGINE_PORT`` etc."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, frozen=True)

    model: str = str(DEMO / "base")
    """Base model: a folder or a Hugging Face Hub name, for example
    ``EleutherAI/polyglot-ko-1.3b``."""
    adapters: str = str(DEMO / "adapters")
    """Folder that contains ``lock.json`` and one subfolder per adapter, or the name of a Hugging
    Face Hub repository with those, and after an @ its revision: ``you/adapters@v2``."""
    lock_key: Path | None = None
    """File with a public Ed25519 key; the lock file must then be signed by its private half
    (deploy/README.md)."""
    engine_drafter: Literal["on", "off"] = "on"
    """Speculative decoding. ``off`` decodes one token per forward pass."""
    engine_draft_tokens: int = Field(default=48, ge=1)
    """Maximum tokens per draft."""
    engine_host: str = "127.0.0.1"
    """Address the engine listens on."""
    vllm_api_key: SecretStr = Field(default=SecretStr(""), validate_default=True)
    """The key that the gateway sends; vLLM reads it by itself. ``make serve`` makes one."""
    engine_port: int = Field(default=8001, ge=1, le=65535)
    """Port the engine listens on."""
    engine_device: Literal["auto", "gpu"] = "auto"
    """``auto`` uses a GPU if available; ``gpu`` (the GPU image's setting) requires one to start."""
    engine_data_parallel: int = Field(default=1, ge=1)
    """Model copies, each on its own GPU, behind one port. vLLM balances requests across them."""
    engine_drain_seconds: int = Field(default=20, ge=1)
    """Seconds that requests may take to finish after SIGTERM. vLLM then drops the rest without a
    response; their connections stay open until it is killed."""
    engine_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type. ``auto`` is the model's own type on a GPU. On a CPU, it is bfloat16 if supported
    natively, otherwise float32 (docs/benchmarks.md)."""
    engine_max_model_len: int = Field(default=2048, ge=256)
    """Maximum length of prompt plus answer, in tokens."""
    engine_max_num_seqs: int = Field(default=128, ge=1)
    """Maximum requests per batch."""
    engine_cpu_kv_cache_gib: int = Field(default=2, ge=1)
    """KV cache size on a CPU, in GiB."""
    engine_memory_gib: float | None = Field(default=None, gt=0)
    """Memory in GiB at which the engine ends itself, rather than have the kernel end something
    else. By default, 95 % of the container's or the machine's."""
    engine_gpu_memory_share: float = Field(default=0.9, gt=0, le=1)
    """Fraction of GPU memory that vLLM uses."""

    @field_validator("vllm_api_key")
    @classmethod
    def _is_needed(cls, key: SecretStr, info: ValidationInfo) -> SecretStr:
        host = info.data.get("engine_host", "127.0.0.1")
        if not key and not is_loopback(host):
            raise ValueError(
                f"ENGINE_HOST={host} serves other machines: set VLLM_API_KEY to a secret, the "
                "gateway's too"
            )
        return key
