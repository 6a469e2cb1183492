"""What the gateway can be told from the environment."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    """Environment variables in capitals: ``PORT``, ``ENGINE_PORT``, ``GATEWAY_MAX_QUEUED``..."""

    model_config = SettingsConfigDict(
        env_prefix="gateway_", use_attribute_docstrings=True, frozen=True, populate_by_name=True
    )

    host: str = "127.0.0.1"
    """Address to listen on (``GATEWAY_HOST``); ``0.0.0.0`` inside a container."""
    port: int = Field(default=8000, ge=1, le=65535, validation_alias=AliasChoices("port"))
    """Port to listen on."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged. Only ``debug`` can show what was asked and answered."""
    engine_port: int = Field(
        default=8001, ge=1, le=65535, validation_alias=AliasChoices("engine_port")
    )
    """The engine's port on this machine, where ``engine_url`` is not given."""
    engine_url: str = Field(
        default="", pattern=r"^(https?://.+)?$", validation_alias=AliasChoices("engine_url")
    )
    """The engine's address, such as ``http://engine:8001``; empty for this machine."""
    connect_timeout_seconds: float = Field(default=0.8, gt=0)
    """How long a connection to the engine may take to open."""
    engine_timeout_seconds: float = Field(default=60.0, gt=0)
    """How long the engine may stay silent: before an answer, or between a stream's chunks."""
    keep_alive_seconds: int = Field(default=75, ge=1)
    """How long an idle client connection stays open: longer than clients and load balancers keep
    theirs (usually 60), or a request can meet a connection that is just being closed."""
    max_in_flight: int = Field(default=256, ge=1)
    """Requests at the engine at once; more wait here."""
    max_queued: int = Field(default=1024, ge=0)
    """Requests waiting here; one more is refused with 429."""
    max_body_bytes: int = Field(default=262_144, ge=1024)
    """Largest request body."""
    probe_interval_seconds: float = Field(default=1.0, gt=0)
    """How often the engine's health is looked at."""

    @field_validator("engine_port")
    @classmethod
    def _engine_is_elsewhere(cls, engine_port: int, info: ValidationInfo) -> int:
        if engine_port == info.data.get("port"):
            raise ValueError("PORT is the same; the gateway and the engine need a port each")
        return engine_port

    @property
    def engine(self) -> str:
        """The engine's address without a slash at the end."""
        return (self.engine_url or f"http://127.0.0.1:{self.engine_port}").rstrip("/")
