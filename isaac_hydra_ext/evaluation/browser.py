"""The page on which a policy is watched. Runs in the process that plays; viser has threads there.

Needs viser, which comes with mjlab and with the extra `viewer`.
"""

import contextlib
import importlib
import io
import socket
from collections.abc import Callable
from typing import Any

from isaac_hydra_ext.envs.viewing import has_display
from isaac_hydra_ext.errors import ConfigError, MissingDependencyError

LOCAL = ("127.0.0.1", "localhost")


class Browser:
    """Serves the page once it is asked to; says where."""

    def __init__(self, host: str, port: int, say: Callable[[str], None]) -> None:
        """Open nothing yet.

        Args:
            host: The address to listen at; 127.0.0.1 is for this machine alone.
            port: Where it is taken, the next free one.
            say: Told the address, and how to reach it from elsewhere.

        Raises:
            ConfigError: This machine has no such address.
        """
        try:
            socket.create_server((host, 0)).close()
        except OSError as e:
            raise ConfigError(
                f"--host {host}: not an address of this machine ({e}); 127.0.0.1 is for this "
                "machine alone, 0.0.0.0 for all that reach it"
            ) from e
        self._host, self._port, self._say = host, port, say
        self._server: Any = None
        self._title, self._shown = "", None

    def open(self) -> Any:
        """Return a `viser.ViserServer` that serves the page.

        Raises:
            MissingDependencyError: viser is not installed.
        """
        try:
            viser = importlib.import_module("viser")
        except ImportError as e:
            raise MissingDependencyError(
                f"--viewer: {e}; install it with: pip install 'isaac-hydra-ext[viewer]'"
            ) from e
        with contextlib.redirect_stdout(io.StringIO()):  # it says where, in a box
            self._server = viser.ViserServer(self._host, self._port, label="appo", verbose=False)
        self._shown = self._server.gui.add_markdown(self._title)
        port, here = self._server.get_port(), socket.gethostname()
        name = "localhost" if self._host in LOCAL else here
        self._say(f"viewer: http://{name}:{port} (Ctrl-C ends it)")
        if not has_display() and self._host in LOCAL:
            self._say(
                f"from another machine: ssh -L {port}:localhost:{port} {here}, and open "
                f"http://localhost:{port} there"
            )
        return self._server

    def title(self, text: str) -> None:
        """Have the page say what is played."""
        self._title = text
        if self._shown is not None:
            self._shown.content = text

    def close(self) -> None:
        """End the server, if there is one."""
        if self._server is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._server.stop()
