"""Is a port free? Asked before the slow part of a start, to fail in one line."""

from __future__ import annotations

import socket


class PortError(ValueError):
    """A port cannot be listened on: the message says which variable moves it."""


def check_port(host: str, port: int, variable: str) -> None:
    """Bind ``port`` once and let go of it.

    Args:
        host: the address to listen on.
        port: the port; 0 is always free.
        variable: the environment variable that sets it, for the message.

    Raises:
        PortError: something else listens there, or the address is not this machine's.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortError(
                f"port {port} on {host} cannot be used ({error.strerror}): set {variable}"
            ) from error
