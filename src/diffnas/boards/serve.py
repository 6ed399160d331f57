"""Serves the board until it is stopped."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from diffnas.errors import RunError, UserError
from diffnas.runtime.files import is_folder

NEEDED = ("starlette", "uvicorn")
PORT = 8321


def serve(
    folder: str | Path,
    host: str = "127.0.0.1",
    port: int = PORT,
    with_token: bool = False,
    say: Callable[[str], object] | None = None,
) -> None:
    """Serves the board over the runs in `folder` at `host` until the process is interrupted; `say` is told its address.

    On a host that others can reach, and `with_token`, it answers only those who bring the token in that address.  Port 0 takes
    a free one.  Raises `UserError` where the address cannot be had or a package is missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"the board needs {' and '.join(missing)}: pip install 'diffnas[board]'")
    if not is_folder(folder):
        raise RunError(f"{folder}: is no folder; name one that holds runs, or will")
    import uvicorn

    from diffnas.boards import pages
    from diffnas.boards.app import make_app
    from diffnas.boards.library import Library

    token = secrets.token_urlsafe(24) if with_token or not is_loopback(host) else None
    listening = _listen(host, port)
    library = Library(folder)
    app = make_app(library, token=token)
    pages.listing(library, "", "")  # its templates are compiled before somebody waits
    if say is not None:
        say(_address(host, listening.getsockname()[1], token))
    settings = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=2, ws="none"
    )
    with listening, suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listening])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        raise UserError(f"--host {host} --port {port}: {reason}; choose another, or --port 0 for any") from None


def _address(host: str, port: int, token: str | None) -> str:
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={quote(token)}" if token else "")
