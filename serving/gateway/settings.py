"""Gateway settings from environment variables."""

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.process import is_loopback


class GatewaySettings(BaseSettings):
    """Settings, read from ``PORT``, ``ENGINE_PORT``, ``GATEWAY_MAX_QUEUED`` etc."""

    model_config = SettingsConfigDict(
        env_prefix="gateway_", use_attribute_docstrings=True, frozen=True, populate_by_name=True
    )

    host: str = "127.0.0.1"
    """Listen address (``GATEWAY_HOST``); use ``0.0.0.0`` in a container."""
    port: int = Field(default=8000, ge=1, le=65535, validation_alias=AliasChoices("port"))
    """Listen port."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Listen port of ``/metrics``, without keys; 0 leaves it on ``PORT``, or nowhere if there are
    keys."""
    keys: Path | None = None
    """File of API keys, which ``python -m serving.keys`` writes (``GATEWAY_KEYS``). Without one,
    anybody who reaches the port may ask."""
    allow_anonymous: bool = Field(
        default=False, validation_alias=AliasChoices("allow_anonymous"), validate_default=True
    )
    """Listen to other machines without keys."""
    pages: bool = True
    """Whether there are ``/`` and ``/docs``, which need no key."""
    tls_certificate: Path | None = None
    """File with the certificate and its chain, to speak TLS; read again when it changes."""
    tls_key: Path | None = Field(default=None, validate_default=True)
    """File with the certificate's key."""
    cors_origins: str = Field(default="", pattern=r"^(https?://[^,/ ]+(,https?://[^,/ ]+)*)?$")
    """Origins of web pages that may ask, such as ``https://a.example,https://b.example``."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum log level. Only ``debug`` can expose request and answer content."""
    engine_port: int = Field(
        default=8001, ge=1, le=65535, validation_alias=AliasChoices("engine_port")
    )
    """Engine port on this machine; used if ``engine_url`` is empty."""
    engine_url: str = Field(
        default="", pattern=r"^(https?://.+)?$", validation_alias=AliasChoices("engine_url")
    )
    """Engine address, such as ``http://engine:8001``; empty for this machine."""
    vllm_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("vllm_api_key")
    )
    """The engine's key."""
    connect_timeout_seconds: float = Field(default=0.8, gt=0)
    """Timeout for opening a connection to the engine."""
    task_timeout_seconds: float = Field(default=30.0, gt=0)
    """Time for a task's answer. Afterwards, the request is taken from the engine and answered with
    504. The request header ``x-request-timeout-ms`` can only shorten it."""
    completion_timeout_seconds: float = Field(default=120.0, gt=0)
    """The same for ``/v1/completions``, streams to their end."""
    drain_seconds: float = Field(default=30.0, ge=1)
    """Time that admitted requests may take to finish after SIGTERM; the rest are cut off."""
    stall_seconds: float = Field(default=5.0, gt=0)
    """Time without progress after which the engine counts as hung, and requests get 503 at once.
    Must be twice the engine's longest step: raise it for a large model on a CPU."""
    keep_alive_seconds: int = Field(default=75, ge=1)
    """Idle timeout of client connections. Must exceed that of clients and load balancers (usually
    60), or a request may use a connection that is being closed."""
    request_seconds: float = Field(default=30.0, gt=0)
    """Time in which a request has to come, and in which its client has to read something of the
    answer."""
    max_connections: int = Field(default=8192, ge=1)
    """Maximum client connections, or as many as there may be open files for."""
    max_connections_per_client: int = Field(default=2048, ge=1)
    """The same of one address. Behind a proxy, which is one, it is that of all clients."""
    max_in_flight: int = Field(default=256, ge=1)
    """Upper bound of concurrent task requests to the engine. The limit itself follows the time that
    answers take; further requests are queued."""
    max_completions_in_flight: int = Field(default=8, ge=1)
    """Places for ``/v1/completions`` at the engine, apart from those of tasks: a request takes one
    a sequence, and one for each 512 tokens of its prompts. Raise it on a GPU."""
    max_queue_seconds: float = Field(default=5.0, gt=0)
    """Longest expected wait in the queue; requests that would wait longer, or past their deadline,
    get 429 at once."""
    max_completion_sequences: int = Field(default=4, ge=1)
    """Maximum sequences of one ``/v1/completions`` request: its prompts times ``n``."""
    max_completion_tokens: int = Field(default=4096, ge=1)
    """Maximum tokens of one ``/v1/completions`` request: those of its prompts (a byte of text
    counts as one, a prompt as 2,048 at most), and its prompts times ``n`` times ``max_tokens``."""
    max_body_bytes: int = Field(default=262_144, ge=1024)
    """Maximum request body size."""
    probe_interval_seconds: float = Field(default=1.0, gt=0)
    """Interval between engine health checks."""

    @field_validator("allow_anonymous")
    @classmethod
    def _is_meant(cls, allowed: bool, info: ValidationInfo) -> bool:
        host = info.data.get("host", "127.0.0.1")
        if not (allowed or info.data.get("keys") or is_loopback(host)):
            raise ValueError(
                f"GATEWAY_HOST={host} serves other machines, and asks for no key: set GATEWAY_KEYS "
                "to a file of python -m serving.keys, or ALLOW_ANONYMOUS=yes"
            )
        return allowed

    @field_validator("tls_key")
    @classmethod
    def _is_a_pair(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if (key is None) != (info.data.get("tls_certificate") is None):
            raise ValueError("GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY go together")
        return key

    @field_validator("engine_port")
    @classmethod
    def _engine_is_elsewhere(cls, engine_port: int, info: ValidationInfo) -> int:
        if engine_port == info.data.get("port"):
            raise ValueError("PORT is the same; the gateway and the engine need a port each")
        return engine_port

    @field_validator("max_completion_sequences")
    @classmethod
    def _fits(cls, sequences: int, info: ValidationInfo) -> int:
        if sequences > info.data.get("max_completions_in_flight", sequences):
            raise ValueError("it exceeds GATEWAY_MAX_COMPLETIONS_IN_FLIGHT")
        return sequences

    @property
    def engine(self) -> str:
        """Engine address without a trailing slash."""
        return (self.engine_url or f"http://127.0.0.1:{self.engine_port}").rstrip("/")
