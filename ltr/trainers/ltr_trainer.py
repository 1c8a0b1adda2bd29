"""The training loop: epochs of steps, saved so that a killed run goes on as if nothing had happened."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from config.console import Progress, say, warn
from config.errors import UserError
from config.files import atomic_writer
from config.interrupt import Interrupt
from ltr.actors.base import Actor, StepResult
from ltr.admin.checkpoint import network_content
from ltr.admin.manifest import FORMAT
from ltr.admin.process_group import ProcessGroup
from ltr.admin.run import Run
from ltr.admin.run_log import RunLog
from ltr.trainers.meter import Meter
from ltr.trainers.schedule import Schedule

# Steps between looks at the device (the loss on the progress line, the count of skipped steps).
_LOOK = 20


class Loader(Protocol):
    """What the trainer asks of a loader; see ``ltr.data.loader``."""

    def epoch(self, epoch: int, sparse: bool, start: int = 0) -> Iterator[dict[str, Any]]:
        """The batches of one epoch from step ``start`` on."""


class Stopped(Exception):
    """A signal ends the run here, within an epoch."""


class LTRTrainer:
    """Trains a network on labelled pairs.

    Args:
        actor: turns a batch into a loss and statistics.
        loader: yields the batches of an epoch.
        optimizer: its groups carry their full rate as ``initial_lr``.
        schedule: sets the rates.
        run: folders, settings, and what is on disk already.
        group: the processes that train together.
        key_frames: fingerprint of the labelled frames (rule 8).
        constructor: ``{"name", "args"}`` from which the network can be built again.
    """

    def __init__(
        self,
        *,
        actor: Actor,
        loader: Loader,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        run: Run,
        group: ProcessGroup,
        key_frames: str = "",
        constructor: Mapping[str, Any] | None = None,
    ) -> None:
        self.actor, self.loader, self.optimizer, self.schedule = actor, loader, optimizer, schedule
        self.run, self.group, self.settings = run, group, run.settings
        self.key_frames, self.constructor = key_frames, dict(constructor or {})
        self.epoch, self.step = 0, 0  # whole epochs, and steps of the next
        self._log: RunLog | None = None
        self._nonfinite = torch.zeros(2, device=group.device)  # steps skipped in a row, and in this epoch
        self._bad_samples: list[str] = []  # of this epoch
        self._meter = Meter()
        self._signal = Interrupt()

    # -- the loop ---------------------------------------------------------------------------------

    def train(self, epochs: int) -> None:
        """Train up to and including ``epochs``, going on from the newest checkpoint of this run.

        At Ctrl-C or SIGTERM the step is finished and all is saved before the signal is obeyed; several processes
        agree on the step, at the latest ``_LOOK`` steps on. A second signal is obeyed at once.

        Raises:
            UserError: the files on disk belong to another run, too many samples are bad, the
                gradients stay non-finite, or the disk is full.
        """
        settings = self.settings
        self.epoch, state = self.group.agree(
            self.run.resume_point(self.key_frames) if self.group.first else None
        )
        self.step = state.get("step", 0)
        if state:
            self.load(self.epoch, state)
            name = self.run.store.weights(self.epoch, "s", self.step).name
            self._tell(f"going on after epoch {self.epoch}{_steps(self.step)} ({name})")
        else:
            self.begin()
        if self.group.first:
            self.run.store.tidy(self.epoch, self.step)
        if self.epoch >= epochs:
            self._tell(f"trained already: {self.run.folder} holds epoch {self.epoch}")
            return
        if self.group.first:
            tensorboard = self.run.tensorboard if settings.train.tensorboard else None
            self._log = RunLog(self.run.folder, tensorboard, state.get("log_size", 0), self.epoch)
        total = epochs * settings.train.iterations
        done = self.epoch * settings.train.iterations + self.step
        try:
            with self._signal, Progress(total, settings.variant, "steps", done) as progress:
                for epoch in range(self.epoch + 1, epochs + 1):
                    self._train_epoch(epoch, progress)
                    stop = self.group.any(self._signal())
                    keep = epoch % settings.train.save_interval == 0 or epoch == epochs
                    if keep or stop or epoch % settings.train.resume_interval == 0:
                        self.save(epoch, keep)
                    if stop:
                        break
        except Stopped:
            self._save_step()
        finally:
            if self._log is not None:
                self._log.close()
        if self._signal():
            self._tell(f"saved after epoch {self.epoch}{_steps(self.step)}; the same command goes on there")
        self._signal.pass_on()

    def stop_if_told(self, step: int) -> None:
        """Leave the epoch here, ``step`` steps into some loop, if a signal has come.

        Several processes ask each other only where they look at the device anyway.

        Raises:
            Stopped: on every process.
        """
        if (self.group.size == 1 or step % _LOOK == 0) and self.group.any(self._signal()):
            raise Stopped

    def _train_epoch(self, epoch: int, progress: Progress) -> None:
        settings = self.settings.train
        self.begin_epoch(epoch)
        self.schedule.begin_epoch(epoch, self.optimizer)
        waited, samples, shown = 0.0, 0, ""
        if not self.step:
            self._meter, self._bad_samples = Meter(), []
            self._nonfinite[1] = 0
        started = mark = time.perf_counter()
        for step, batch in enumerate(self.loader.epoch(epoch, self.sparse(epoch), self.step), self.step):
            waited += time.perf_counter() - mark
            self._count_bad(batch.get("bad", []))
            picture = step == 0 and settings.image_interval > 0 and epoch % settings.image_interval == 0
            result = self._step(epoch, step, batch, picture and self.group.first)
            self._meter.add(result.stats)
            if result.picture is not None:
                self._picture(epoch, result.picture)
            samples += (
                sum(len(part["index"]) for name, part in batch.items() if name != "bad") * self.group.size
            )
            if step % _LOOK == 0:
                shown = f"{result.loss.item():.3f}"
                self._watch_nonfinite(epoch)
            elapsed = time.perf_counter() - started
            progress.label = f"{self.settings.variant} {self.stage(epoch)} epoch {epoch}/{settings.epochs}"
            if self.group.first:
                progress.update(
                    1,
                    loss=shown,
                    samples_per_s=f"{samples / elapsed:.0f}",
                    waiting=f"{100 * waited / elapsed:.0f} %",
                )
            self.step = step + 1
            self.stop_if_told(step)
            mark = time.perf_counter()
        self._watch_nonfinite(epoch)
        elapsed = max(time.perf_counter() - started, 1e-9)  # nothing was left to do of an epoch gone on with
        values: dict[str, Any] = {
            "stage": self.stage(epoch),
            "lr": [group["lr"] for group in self.optimizer.param_groups],
        }
        values |= self._meter.means(self.group) | self.end_epoch(epoch)
        values["skipped_steps"] = int(self._nonfinite[1].item())
        values["bad_samples"] = len(self._bad_samples)
        speed = {
            "samples_per_s": round(samples / elapsed, 1),
            "waiting": round(waited / elapsed, 4),
            "seconds": round(elapsed, 2),
        }
        if self._log is not None:
            self._log.write(epoch, values, speed)
        self.epoch, self.step = epoch, 0
        self._tell(_summary(epoch, settings.epochs, values, speed))

    def _step(self, epoch: int, step: int, batch: dict[str, Any], picture: bool) -> StepResult:
        # Dropout draws from torch's generator: seeded here, a resumed run repeats it.
        origin = [self.settings.seed, epoch, step, self.group.rank]
        torch.manual_seed(int(np.random.SeedSequence(origin).generate_state(1)[0]))
        self.schedule.begin_step(epoch, step, self.optimizer)
        result = self.actor(batch, picture)
        self.optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        self._guarded_update()
        return result

    def _guarded_update(self) -> None:
        """Clip and step; a step with a non-finite gradient is skipped on the device, without a look at it."""
        trained = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm([p.grad for p in trained if p.grad is not None])
        if self.settings.optim.clip_norm > 0:
            clip_grads_with_norm_(trained, self.settings.optim.clip_norm, norm)
        bad = (~torch.isfinite(norm)).to(torch.float32)
        self._nonfinite += bad
        self._nonfinite[0] *= bad
        if getattr(self.optimizer, "_step_supports_amp_scaling", False):  # fused kernels take the flag
            self.optimizer.grad_scale, self.optimizer.found_inf = None, bad  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not bad.item():
            self.optimizer.step()

    def _watch_nonfinite(self, epoch: int) -> None:
        limit = self.settings.train.max_nonfinite
        if self._nonfinite[0].item() >= limit:
            raise UserError(
                f"epoch {epoch}: the gradient was not finite in {limit} steps in a row; lower optim.lr, set optim.clip_norm, "
                f"or go on from an earlier checkpoint in {self.run.folder}"
            )

    def _count_bad(self, messages: list[str]) -> None:
        for message in messages:
            if len(self._bad_samples) < 10:
                warn(f"sample replaced: {message}")
            self._bad_samples.append(message)
        limit = self.settings.data.max_bad_samples
        if len(self._bad_samples) > limit:
            raise UserError(
                f"more than {limit} unreadable samples in one epoch (data.max_bad_samples), the last: "
                f"{self._bad_samples[-1]}; mend the data set"
            )

    # -- what a trainer with more stages adds ------------------------------------------------------

    def sparse(self, epoch: int) -> bool:
        """Whether the batches of ``epoch`` have an unsupervised part."""
        return False

    def stage(self, epoch: int) -> str:
        """What the progress line calls this part of the run."""
        return "supervised"

    def begin(self) -> None:
        """Called once when a run starts from nothing."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of each epoch."""
        self.actor.train()

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Called after the last step of each epoch; what it returns goes into the log."""
        return {}

    def parts(self) -> dict[str, nn.Module]:
        """The networks that are saved, by the last letter of their file name."""
        return {"s": self.actor.plain_network}

    def write_state(self):
        """A function that writes the sampler state to a path, or None."""
        return None

    # -- saving and loading -----------------------------------------------------------------------

    def save(self, epoch: int, keep: bool) -> None:
        """Make ``epoch`` exist on disk."""
        if self.group.first:
            self.run.store.save(epoch, self._content(epoch), self.write_state(), keep)
        self.group.wait()

    def _content(self, epoch: int) -> dict[str, dict[str, Any]]:
        settings = self.settings.plain()
        content: dict[str, dict[str, Any]] = {
            part: network_content(network, self.run.store.net_type, self.constructor, settings, epoch)
            for part, network in self.parts().items()
        }
        content["state"] = {
            "format": FORMAT,
            "epoch": epoch,
            "optimizer": self.optimizer.state_dict(),
            "key_frames": self.key_frames,
            "log_size": self._log.size() if self._log is not None else 0,
            "settings": settings,
        }
        return content

    def _save_step(self) -> None:
        """Make the steps done of the unfinished epoch exist on disk."""
        within = self.within_epoch()
        if self.group.first:
            content = self._content(self.epoch)
            content["state"] |= {"step": self.step, **within}
            self.run.store.save(self.epoch, content, None, keep=False, step=self.step)
        self.group.wait()

    def within_epoch(self) -> dict[str, Any]:
        """What a training state saved within an epoch holds beside that of a whole one; every process calls it."""
        counted = {
            "meter": self._meter.state(),
            "bad_samples": self._bad_samples,
            "nonfinite": self._nonfinite.cpu(),
        }
        return {"counted": self.group.collect(counted)}

    def load(self, epoch: int, state: dict[str, Any]) -> None:
        """Put networks and optimizer back to the end of ``epoch``, or to ``state["step"]`` steps after it."""
        step = state.get("step", 0)
        for part, network in self.parts().items():
            if self.run.store.has(epoch, part, step):
                network.load_state_dict(self.run.store.load(epoch, part, step)["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        for counted in state.get("counted", [])[self.group.rank :: self.group.size]:
            self._meter.restore(counted["meter"], self.group.device)
            self._bad_samples += counted["bad_samples"]
            self._nonfinite = counted["nonfinite"].to(self.group.device)  # the same on every process

    def _picture(self, epoch: int, picture: np.ndarray) -> None:
        with atomic_writer(self.run.store.pictures / f"ep{epoch:04d}.png") as file:
            file.write(cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1])
        if self._log is not None:
            self._log.image(epoch, picture)

    def _tell(self, text: str) -> None:
        if self.group.first:
            say(text)


def _steps(step: int) -> str:
    return f" and {step} steps of the next" if step else ""


def _summary(epoch: int, epochs: int, values: dict[str, Any], speed: dict[str, Any]) -> str:
    names = ("loss", "iou", "pseudo_iou", "acceptance", "explored")
    known = [name for name in names if values.get(name) is not None]
    shown = "  ".join(f"{name.replace('_', ' ')} {values[name]:.3f}" for name in known)
    rate = f"{speed['samples_per_s']:.0f} samples/s, waiting {100 * speed['waiting']:.0f} %"
    return f"epoch {epoch}/{epochs} {values['stage']}  {shown}  {rate}"
