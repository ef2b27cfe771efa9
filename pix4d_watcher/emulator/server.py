"""Starting and stopping the emulator: inside a process for tests, or as the command.

Owns the listening thread and the data directory. The server is the standard library's and not Starlette; connection.py
says why.
"""

import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pix4d_watcher.emulator import control
from pix4d_watcher.emulator.connection import Server
from pix4d_watcher.emulator.faults import Faults
from pix4d_watcher.emulator.settings import Settings, changed
from pix4d_watcher.emulator.state import State

_STOP_SECONDS = 5.0  # for connections to end


class Emulator:
    """The service on one port, from `start` (or entering `with`) to `stop`."""

    def __init__(self, listen: str = "127.0.0.1:0", data_dir: Path | None = None, **settings: object) -> None:
        """Prepare; `listen` is HOST:PORT, where port 0 takes a free one.

        Objects lie in `data_dir`, or in a temporary directory that goes away. Raises ValueError for a wrong address or
        setting.
        """
        host, _, port = listen.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"{listen!r} is not HOST:PORT; 127.0.0.1:0 takes a free port")
        self._address = (host, int(port))
        self._settings = changed(Settings(), settings)
        self._data_dir = data_dir
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Listen; raises OSError when the address is taken."""
        if self._data_dir is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="pix4d-emulator-")
        directory = self._data_dir or Path(self._temporary.name if self._temporary else "")
        directory.mkdir(parents=True, exist_ok=True)
        try:
            self._server = Server(self._address, State(directory, self._settings))
        except OSError:
            self.stop()  # takes the temporary directory away
            raise
        # the interval is how long stopping can take, nothing else waits for it
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="emulator", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening, end all connections, remove the temporary directory; safe to call twice."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()
            self._thread.join()
            server.server_close()
            server.end_connections(_STOP_SECONDS)
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def state(self) -> State:
        """The facts of the running service; raises RuntimeError when it is not running."""
        if self._server is None:
            raise RuntimeError("the emulator is not running")
        return self._server.state

    @property
    def url(self) -> str:
        """The address of REST and S3, without a slash at the end."""
        if self._server is None:
            raise RuntimeError("the emulator is not running")
        return f"http://{self._address[0]}:{self._server.server_address[1]}"

    @property
    def faults(self) -> Faults:
        """The scripted faults: `add`, `clear`, `listing`."""
        return self.state.faults

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return self.state.settings

    def change(self, **settings: object) -> Settings:
        """Change settings while it runs; raises ValueError."""
        return self.state.change_settings(settings)

    def ledger(self) -> dict[str, Any]:
        """Return what was applied, as `GET /_emulator/ledger` does."""
        return control.ledger(self.state)

    def expire(self, what: str) -> None:
        """Let all issued tokens (`token`) or S3 credentials (`credentials`) expire now."""
        self.state.expire(what)

    def by_hand(self, project_id: int, action: str, value: object = None) -> dict[str, Any]:
        """Do what a person does in the service's own page: `start`, `delete` or `add_image`."""
        return control.by_hand(self.state, project_id, action, value)

    def reset(self) -> None:
        """Forget everything and return to the settings of the beginning."""
        self.state.reset()


def serve(listen: str, data_dir: Path | None = None, **settings: object) -> None:
    """Run the emulator in the main thread until SIGTERM or SIGINT.

    Prints `ready http://HOST:PORT` on stdout when it listens.
    Raises ValueError for a wrong address or setting, OSError when the address is taken.
    """
    ends = {signal.SIGTERM, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in every thread, so that they wait for sigwait
    try:
        with Emulator(listen, data_dir, **settings) as emulator:
            sys.stdout.write(f"ready {emulator.url}\n")
            sys.stdout.flush()
            signal.sigwait(ends)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
