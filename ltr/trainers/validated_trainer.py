"""Supervised training that also looks at videos it does not learn from."""

from __future__ import annotations

from typing import Any

import torch

from ltr.trainers.ltr_trainer import Loader, LTRTrainer, Stopped
from ltr.trainers.meter import Meter


class ValidatedTrainer(LTRTrainer):
    """``LTRTrainer`` with a look at a validation set every few epochs.

    The samples are those of epoch 0, the same every time, so that the numbers of two epochs differ by the
    network alone. They are logged like the training's own, as ``val_...``. Nothing random is drawn, and the
    network learns nothing from them, batch statistics included.

    Args:
        validation: yields the batches; None: there is no validation.
        **rest: as for ``LTRTrainer``; the setting ``validation.interval`` is used.
    """

    def __init__(self, *, validation: Loader | None, **rest: Any) -> None:
        super().__init__(**rest)
        self.validation = validation

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        values = super().end_epoch(epoch)
        if self.validation is None or epoch % self.settings.validation.interval:
            return values
        return values | {f"val_{name}": value for name, value in self._validate(self.validation).items()}

    @torch.no_grad()
    def _validate(self, loader: Loader) -> dict[str, float | None]:
        """The mean statistics of the actor over the validation set."""
        self.actor.plain_network.eval()  # the next epoch begins with actor.train()
        meter = Meter()
        before = len(self._bad_samples)
        for step, batch in enumerate(loader.epoch(0, False)):
            self._count_bad(batch.get("bad", []))
            meter.add(self.actor(batch).stats)
            try:
                self.stop_if_told(step)
            except Stopped:  # the run goes on with the whole validation
                del self._bad_samples[before:]
                raise
        return meter.means(self.group)
