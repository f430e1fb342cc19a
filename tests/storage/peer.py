"""Another process on the same database, driven call by call over a pipe."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from hpo.storage import write_behind
from hpo.study import StudyStorage

__all__ = ["NEVER", "Peer"]

Given = ParamSpec("Given")
Result = TypeVar("Result")
NEVER = 3600.0  # seconds that a write may wait: longer than any test


class Peer:
    """A process with a storage of its own. It dies with the test's end of the pipe."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.storage.peer"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def open(self, url: str, stale: float = NEVER) -> None:
        """Open the database; writes wait for `stale` seconds."""
        self.begin(_open, url, stale)
        self.result()

    def __call__(
        self, function: Callable[Concatenate[Any, Given], Result], /, *args: Given.args, **kwargs: Given.kwargs
    ) -> Result:
        """What a function returns there, or raises; its first argument is the storage there."""
        self.begin(function, *args, **kwargs)
        result: Result = self.result()
        return result

    def begin(self, function: Callable[..., object], /, *args: Any, **kwargs: Any) -> None:
        """Call a function there; `result` waits for it."""
        assert self._process.stdin is not None
        _send(self._process.stdin, (function, args, kwargs))

    def result(self) -> Any:
        """What the function returned, or raised."""
        assert self._process.stdout is not None
        raised, value = pickle.load(self._process.stdout)
        if raised:
            raise value
        return value

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it without a word."""
        self._process.kill()
        self._process.communicate()


def _send(pipe: IO[bytes], message: object) -> None:
    pickle.dump(message, pipe)
    pipe.flush()


def _open(_: StudyStorage | None, url: str, stale: float) -> None:
    global _storage
    if _storage is not None:
        _storage.engine.dispose()
    write_behind.STALE = stale
    _storage = StudyStorage(url)


_storage: StudyStorage | None = None


def _main() -> None:
    """Answer calls until the other end of the pipe is closed."""
    pipe = sys.stdout.buffer
    sys.stdout = sys.stderr  # what is printed must not get among the answers
    while True:
        try:
            function, args, kwargs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (False, function(_storage, *args, **kwargs))
        except Exception as error:
            answer = (True, error)
        _send(pipe, answer)


if __name__ == "__main__":
    from tests.storage import peer  # by its name, which is the one that functions are sent under

    peer._main()
