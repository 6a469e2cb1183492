"""Process startup helpers: fail fast with one line that says what to set, and make sure that child
processes do not outlive their parent."""

import ipaddress
import multiprocessing
import os
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
from pydantic import ValidationError
from pydantic_settings import BaseSettings

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""A container's CPU quota and period in microseconds; the quota is ``max`` if unlimited."""
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""A container's memory limit in bytes; ``max`` if unlimited."""
Settings = TypeVar("Settings", bound=BaseSettings)


class StartError(ValueError):
    """The process cannot start; the message names the environment variable to set."""


def load(settings: type[Settings]) -> Settings:
    """Read ``settings`` from the environment.

    Raises:
        StartError: a variable has an invalid value.
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


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach what listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def file_version(path: Path) -> object:
    """Return something that changes when the file does."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def check_port(host: str, port: int, variable: str) -> None:
    """Check that ``port`` is free by binding and releasing it.

    Args:
        host: address to listen on.
        port: port number; 0 is always free.
        variable: environment variable that sets the port, for the error message.

    Raises:
        StartError: the port is in use, or the address is not this machine's.
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
    """Return the CPU cores that this process may use: its CPU affinity or the container's quota,
    whichever is lower."""
    allowed: float = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # not in a container, or no limit
        quota, period = map(int, CPU_LIMIT.read_text(encoding="ascii").split())
        allowed = min(allowed, quota / period)
    return allowed


def memory_gib() -> float:
    """Return the GiB of memory that this process may use: the machine's or the container's limit,
    whichever is lower."""
    total: float = psutil.virtual_memory().total
    with suppress(OSError, ValueError):  # not in a container, or no limit
        total = min(total, int(MEMORY_LIMIT.read_text(encoding="ascii")))
    return total / 2**30


def die_with_parent() -> None:
    """Kill this process when its parent exits for any reason. Works in ``multiprocessing`` children
    with any start method; does nothing in other processes."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="die with parent", daemon=True).start()
