"""Sparsely-supervised training: burn-in, then a teacher that explores the unlabelled frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from config.console import say
from ltr.actors.base import StepResult
from ltr.actors.sparse import SparseActor
from ltr.data.sampler_state import RECORD, Journal, SamplerState
from ltr.trainers.ltr_trainer import LTRTrainer
from ltr.trainers.teacher import MovingAverage


class SparseTrainer(LTRTrainer):
    """Burn-in on labelled pairs, then teacher and student (SPOT, Sparsely-Supervised Object Tracking, IEEE TIP 2024).

    Args:
        actor: a ``SparseActor``; its teacher is the one that moves.
        state: what has been located so far; merged at the end of each sparse epoch.
        lengths: frames of each video, for the explored share.
        **rest: as for ``LTRTrainer``.
    """

    actor: SparseActor

    def __init__(self, *, actor: SparseActor, state: SamplerState, lengths: np.ndarray, **rest: Any) -> None:
        super().__init__(actor=actor, **rest)
        self.state, self.frames = state, int(np.sum(lengths))
        settings = self.settings
        self.average = MovingAverage(actor.teacher, actor.plain_network, settings.sparse.keep_rate)
        self._steps = 0
        self._journal: Journal | None = None

    def sparse(self, epoch: int) -> bool:
        return epoch > self.settings.train.burn_in_epochs

    def stage(self, epoch: int) -> str:
        return "sparse" if self.sparse(epoch) else "burn-in"

    def begin_epoch(self, epoch: int) -> None:
        super().begin_epoch(epoch)
        self._steps = 0
        if epoch == self.settings.train.burn_in_epochs + 1 and not self.step:
            self.actor.teacher.load_state_dict(self.actor.plain_network.state_dict())
        if self.sparse(epoch):
            self._open_journal()

    def _open_journal(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(self.run.journal(self.group.rank))
            self._journal.reset()  # what it held is older than the checkpoint that this run goes on from
        return self._journal

    def _step(self, epoch: int, step: int, batch: dict[str, Any], picture: bool) -> StepResult:
        if self.sparse(epoch) and step % self.settings.sparse.update_frequency == 0:
            self.average.update()
        result = super()._step(epoch, step, batch, picture)
        self._steps += 1
        if self.sparse(epoch) and self._steps % 20 == 0:
            self._note(epoch)
        return result

    def _note(self, epoch: int) -> None:
        """Write what was accepted since the last call to the journal; the epoch orders it before the next one's."""
        assert self._journal is not None
        records = self.actor.take_records()
        records["order"] += epoch << 32
        self._journal.append(records)

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        if self._journal is None or not self.sparse(epoch):
            return {"explored": self._explored()}
        self._note(epoch)
        self._journal.commit()
        noted = self._journal.read()  # since the last checkpoint
        records = self.group.gather(noted[noted["order"] >= epoch << 32])
        counts: dict[str, int] = {}
        if self.group.first_of_node:
            merged = self.state.merge(records)
            counts = {"new_frames": merged.inserted, "improved_frames": merged.improved}
        self.group.wait()
        self.state.refresh()
        return {"pseudo_labels": len(records), **counts, "explored": self._explored()}

    def _explored(self) -> float:
        return round(self.state.recorded_frames() / max(self.frames, 1), 6)

    def parts(self) -> dict[str, nn.Module]:
        networks: dict[str, nn.Module] = {"s": self.actor.plain_network}
        if self.sparse(self.epoch + bool(self.step)):
            networks["t"] = self.actor.teacher
        return networks

    def write_state(self):
        return self.state.write_json

    def save(self, epoch: int, keep: bool) -> None:
        """As ``LTRTrainer.save``; the snapshot takes over what the journal held."""
        super().save(epoch, keep)
        if self._journal is not None:
            self._journal.reset()

    def within_epoch(self) -> dict[str, Any]:
        if self._journal is None:
            return super().within_epoch()
        self._note(self.epoch + 1)
        noted = self.group.gather(self._journal.read())  # since the last whole epoch on disk
        return super().within_epoch() | {"journal": torch.from_numpy(noted.view(np.uint8))}

    def load(self, epoch: int, state: dict[str, Any]) -> None:
        super().load(epoch, state)
        if "journal" in state:
            journal = self._open_journal()
            noted = state["journal"].numpy().view(RECORD)
            if self.group.first:
                journal.append(noted)
            if self.group.first_of_node:
                whole = noted["order"] < (epoch + 1) << 32  # the others are merged when their epoch ends
                self.state.merge(noted[whole])
            self.group.wait()
            self.state.refresh()
        if self.group.first:
            if not self.step:
                self.run.store.publish(epoch)
            say(f"sampler state: {100 * self._explored():.1f} % of the frames explored")
