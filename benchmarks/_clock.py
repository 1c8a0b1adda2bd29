"""A clock at the parts of a tracker."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


class Clock:
    """Collects the milliseconds of named parts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: dict[str, list[float]] = defaultdict(list)
        self._nested: list[float] = []  # of each part that is running, the time of the parts in it

    def now(self) -> float:
        """Milliseconds after all work given to the device; on one CPU thread its own, whoever else computes."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif torch.get_num_threads() == 1:
            return time.process_time() * 1000
        return time.perf_counter() * 1000

    @contextlib.contextmanager
    def part(self, name: str, own: bool = False) -> Iterator[None]:
        """Time a block; its ``own`` time is without the parts in it."""
        start = self.now()
        self._nested.append(0.0)
        yield
        spent, inner = self.now() - start, self._nested.pop()
        if self._nested:
            self._nested[-1] += spent
        self.times[name].append(spent - inner if own else spent)

    def wrap(self, owner: object, method: str, name: str, own: bool = False) -> None:
        """Time the calls of a method of one object."""
        call = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name, own):
                return call(*args, **kwargs)

        setattr(owner, method, timed)

    def watch(self, name: str, *modules: torch.nn.Module) -> None:
        """Time the calls of ``modules``, the first of which begins and the last of which ends the part."""
        start = [0.0]
        modules[0].register_forward_pre_hook(lambda *_: start.__setitem__(0, self.now()))
        modules[-1].register_forward_hook(lambda *_: self.times[name].append(self.now() - start[0]))

    def median(self, name: str) -> float:
        """The middle of the measurements, first one left out."""
        values = self.times[name]
        return float(np.median(values[1:] if len(values) > 1 else values))
