"""What processes do as they start: check before the slow part, to fail in one line that says what
to set, and see that children do not outlive their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""A container's: microseconds of processor time, and in how many; ``max`` for no limit."""
Settings = TypeVar("Settings", bound=BaseSettings)


class StartError(ValueError):
    """A process cannot start: the message names the environment variable to set."""


def load(settings: type[Settings]) -> Settings:
    """Read ``settings`` from the environment.

    Raises:
        StartError: a variable's value is not what its field takes.
    """
    try:
        return settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if name in settings.model_fields and not settings.model_fields[name].validation_alias:
            name = settings.model_config.get("env_prefix", "") + name
        message = f"{name.upper()}={first['input']}: {first['msg']}"
        raise StartError(message) from error


def check_port(host: str, port: int, variable: str) -> None:
    """Bind ``port`` once and let go of it.

    Args:
        host: the address to listen on.
        port: the port; 0 is always free.
        variable: the environment variable that sets it, for the message.

    Raises:
        StartError: something else listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(
                f"port {port} on {host} cannot be used ({error.strerror}): set {variable}"
            ) from error


def cores() -> float:
    """Processor cores that this process may use: those it may run on, or less where a container's
    quota leaves it the time of fewer."""
    allowed: float = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no container, or no limit
        quota, period = map(int, CPU_LIMIT.read_text(encoding="ascii").split())
        allowed = min(allowed, quota / period)
    return allowed


def die_with_parent() -> None:
    """In a child process of Python's ``multiprocessing``, however it was started: be killed when
    the parent ends, however that happens. Elsewhere nothing changes."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="die with parent", daemon=True).start()
