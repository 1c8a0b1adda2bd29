"""Ctrl-C and SIGTERM that wait until a piece of work is whole."""

from __future__ import annotations

import signal
import time
from typing import Any

# Schedulers send SIGTERM to a process and to its launcher, which sends it on: one request, not two.
_ECHO_SECONDS = 2.0


class Interrupt:
    """While entered, Ctrl-C and SIGTERM are remembered instead of obeyed; a second signal is obeyed at once.

    A SIGTERM that follows another within two seconds counts as the same.
    """

    def __init__(self) -> None:
        self._number = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self._number != 0

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # ignored by whoever started us
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _remember(self, number: int, _: object) -> None:
        echo = number == self._number == signal.SIGTERM and time.monotonic() - self._since < _ECHO_SECONDS
        if not self._number:
            self._number, self._since = number, time.monotonic()
        elif not echo:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on(self) -> None:
        """Obey the signal that has come, if any."""
        if self._number:
            signal.raise_signal(self._number)
