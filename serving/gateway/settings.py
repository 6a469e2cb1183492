"""Gateway settings from environment variables."""

from typing import Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    """Settings, read from ``PORT``, ``ENGINE_PORT``, ``GATEWAY_MAX_QUEUED`` etc."""

    model_config = SettingsConfigDict(
        env_prefix="gateway_", use_attribute_docstrings=True, frozen=True, populate_by_name=True
    )

    host: str = "127.0.0.1"
    """Listen address (``GATEWAY_HOST``); use ``0.0.0.0`` in a container."""
    port: int = Field(default=8000, ge=1, le=65535, validation_alias=AliasChoices("port"))
    """Listen port."""
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
    connect_timeout_seconds: float = Field(default=0.8, gt=0)
    """Timeout for opening a connection to the engine."""
    engine_timeout_seconds: float = Field(default=60.0, gt=0)
    """Engine read timeout: before a response, or between chunks of a stream."""
    keep_alive_seconds: int = Field(default=75, ge=1)
    """Idle timeout of client connections. Must exceed that of clients and load balancers (usually
    60), or a request may use a connection that is being closed."""
    max_in_flight: int = Field(default=256, ge=1)
    """Maximum concurrent requests to the engine; further requests are queued."""
    max_queued: int = Field(default=1024, ge=0)
    """Queue capacity; further requests are rejected with 429."""
    max_completion_sequences: int = Field(default=4, ge=1)
    """Maximum sequences of one ``/v1/completions`` request: its prompts times ``n``."""
    max_completion_tokens: int = Field(default=2048, ge=1)
    """Maximum tokens that one ``/v1/completions`` request may generate: its prompts times ``n``
    times ``max_tokens``."""
    max_body_bytes: int = Field(default=262_144, ge=1024)
    """Maximum request body size."""
    probe_interval_seconds: float = Field(default=1.0, gt=0)
    """Interval between engine health checks."""

    @field_validator("engine_port")
    @classmethod
    def _engine_is_elsewhere(cls, engine_port: int, info: ValidationInfo) -> int:
        if engine_port == info.data.get("port"):
            raise ValueError("PORT is the same; the gateway and the engine need a port each")
        return engine_port

    @property
    def engine(self) -> str:
        """Engine address without a trailing slash."""
        return (self.engine_url or f"http://127.0.0.1:{self.engine_port}").rstrip("/")
