"""Averages over an epoch that cost no synchronisation."""

from __future__ import annotations

import torch

from ltr.admin.process_group import ProcessGroup


class Meter:
    """Sums statistics on the device; they are read once, at the end of the epoch.

    A statistic that is not a finite number in some step is left out of that step.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, torch.Tensor] = {}

    def add(self, stats: dict[str, torch.Tensor]) -> None:
        """Add the scalar tensors of one step."""
        for name, value in stats.items():
            value = value.detach().double()
            good = torch.isfinite(value)
            value = torch.where(good, value, torch.zeros_like(value))
            if name in self._sums:
                self._sums[name] += value
                self._counts[name] += good
            else:
                self._sums[name], self._counts[name] = value.clone(), good.double()

    def state(self) -> dict[str, torch.Tensor]:
        """Sum and count ``[2]`` of each statistic, float64 on the CPU; what ``restore`` takes."""
        return {name: torch.stack([total, self._counts[name]]).cpu() for name, total in self._sums.items()}

    def restore(self, state: dict[str, torch.Tensor], device: torch.device) -> None:
        """Add what another meter had summed."""
        for name, (total, count) in state.items():
            total, count = total.to(device), count.to(device)
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._counts[name] = self._counts[name] + count if name in self._counts else count

    def means(self, group: ProcessGroup) -> dict[str, float | None]:
        """The mean of each statistic over steps and processes, six significant digits; None without a value."""
        names = sorted(self._sums)
        if not names:
            return {}
        table = group.mean(torch.stack([torch.stack([self._sums[n], self._counts[n]]) for n in names])).cpu()
        return {
            name: float(f"{total / count:.6g}") if count > 0 else None
            for name, (total, count) in zip(names, table.tolist())
        }
