"""What a person sees: colour on a terminal, plain text in a pipe, one progress line."""

from __future__ import annotations

import os
import sys
import time
from typing import IO

import colorama
from tqdm import tqdm

colorama.just_fix_windows_console()

_STYLES = {
    "error": colorama.Fore.RED + colorama.Style.BRIGHT,
    "warning": colorama.Fore.YELLOW,
    "good": colorama.Fore.GREEN,
    "title": colorama.Style.BRIGHT,
    "faint": colorama.Style.DIM,
}


def coloured(stream: IO[str] | None = None) -> bool:
    """Whether ``stream`` (default stdout) takes colours: a terminal, and ``NO_COLOR`` is unset or empty."""
    stream = stream if stream is not None else sys.stdout
    return not os.environ.get("NO_COLOR") and hasattr(stream, "isatty") and stream.isatty()


def paint(text: str, style: str, stream: IO[str] | None = None) -> str:
    """``text`` in one of the styles error, warning, good, title, faint; unchanged where colour is off."""
    return f"{_STYLES[style]}{text}{colorama.Style.RESET_ALL}" if coloured(stream) else text


def say(text: str, style: str | None = None) -> None:
    """Print one line on stdout without tearing a progress line."""
    tqdm.write(paint(text, style) if style else text, file=sys.stdout)
    sys.stdout.flush()


def warn(text: str) -> None:
    """Print one warning line on stderr."""
    tqdm.write(paint("warning: ", "warning", sys.stderr) + text, file=sys.stderr)


class Progress:
    """One progress line: done, rate, time left and whatever ``update`` is given.

    On a terminal the line is redrawn in place; in a pipe a plain line appears every
    ``pipe_seconds`` seconds and at the end.

    Args:
        total: number of steps; 0 where it is not known.
        label: what is being done; may be changed between updates.
        unit: name of a step.
        initial: steps that were done before (a resumed run).
    """

    def __init__(
        self, total: int, label: str, unit: str = "it", initial: int = 0, pipe_seconds: float = 10.0
    ) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.done = initial
        self._initial = initial
        self._start = self._printed = time.monotonic()
        self._pipe_seconds = pipe_seconds
        self._bar = (
            tqdm(total=total or None, desc=label, unit=unit, initial=initial, leave=False, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def update(self, steps: int = 1, **figures: object) -> None:
        """Count ``steps`` and show ``figures`` (name=value) behind the rate."""
        self.done += steps
        text = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.set_description_str(self.label, refresh=False)
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(steps)
            return
        now = time.monotonic()
        if now - self._printed >= self._pipe_seconds or (
            0 < self.total <= self.done and now - self._start >= self._pipe_seconds
        ):
            self._printed = now
            rate = (self.done - self._initial) / max(now - self._start, 1e-9)
            count, left = f"{self.done} {self.unit}, {rate:.1f}/s", ""
            if self.total:
                count = f"{self.done}/{self.total} {self.unit}, {rate:.1f}/s"
                left = f", {duration((self.total - self.done) / max(rate, 1e-9))} left"
            print(f"{self.label}: {count}{left}  {text}".rstrip(), flush=True)

    def close(self) -> None:
        """Remove the line."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def duration(seconds: float) -> str:
    """``75`` -> ``1:15``; ``4000`` -> ``1:06:40``."""
    seconds = round(seconds)
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
