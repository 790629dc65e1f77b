"""Training models as the chip will run them: rounded, and with errors of its cells.

Equations are those of `ssm.trainable_layer`; here is the loop around them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from aimc_sim.aging import check_time
from aimc_sim.errors import InputError, UsageError
from aimc_sim.specs import ChipSpec
from ssm.model import LAYER_ARRAYS, MODEL_ARRAYS, Model
from ssm.onchips import OnChips
from ssm.parts import PARTS
from ssm.quantize import Precision, check_bits
from ssm.resume import read_state, write_state
from ssm.schemes import Scheme
from ssm.tasks import Task, calibration_rows
from ssm.train import DivergedError, are_sound, choose_device, default_device, kept_in
from ssm.trainable import Trainable
from ssm.training_data import check_settings, training_data

_CALIBRATION_ROWS = 256
_SCORED_AT_ONCE = 250
_LOOK_EVERY = 32  # steps between looks at the loss: a look waits for the GPU
_MOST_SKIPPED = 20  # steps in a row without a finite gradient: errors of cells can make a few
_WIDEST = 16  # bits

OneOrMore = TypeVar("OneOrMore", Model, list[Model])


@dataclasses.dataclass(frozen=True, eq=False)
class TunedEpoch:
    """What one pass over the training data gave; number 0 is the start, not yet trained.

    Attributes
    ----------
    number, n_epochs : this pass, of how many.
    loss : (runs,) mean training loss in nats; NaN at the start.
    accuracy : (runs,) share of training sequences classified rightly, rounding and errors on.
    validation : (runs,) share of the validation sequences, with rounding and without errors of
        cells; None where there are none.
    skipped : (runs,) steps left out because their gradient was not finite.
    wall_s : seconds since the training began.
    """

    number: int
    n_epochs: int
    loss: np.ndarray
    accuracy: np.ndarray
    validation: np.ndarray | None
    skipped: np.ndarray
    wall_s: float


def fine_tune(
    models: OneOrMore,
    task: str | Task | tuple[np.ndarray, np.ndarray],
    *,
    precision: Precision | None = None,
    scheme: Scheme | None = None,
    chip: ChipSpec | Sequence[ChipSpec] | None = None,
    at_s: float = 86_400.0,
    form: str | None = None,
    decay: str = "tile",
    digital: Collection[str] = (),
    read_errors: bool = True,
    epochs: int = 7,
    lr: float = 2e-3,
    kernel_lr: float | None = None,
    weight_decay: float = 0.01,
    batch_size: int = 64,
    clip: float = 1.0,
    ramp: float = 0.0,
    seed: int = 0,
    device: str | None = None,
    validate: tuple[np.ndarray, np.ndarray] | None = None,
    on_epoch: Callable[[TunedEpoch], None] | None = None,
    checkpoint: str | Path | None = None,
) -> OneOrMore:
    """Return models trained further as the chip will run them, step by step.

    The recurrence is exact: weights, activations and states are rounded as `precision` says, at
    every step, with straight-through gradients and learned steps; with `chip`, every batch meets
    a fresh draw of its cells' errors. Several models of one shape are trained side by side on
    the same batches, each with its own optimiser state and gradient clip. AdamW with one cycle
    of the learning rate. With neither precision nor chip this is plain training in float.

    On the CPU the result is a function of the arguments, bit for bit; torch's global random
    state is left as it was.

    Parameters
    ----------
    models : one, or several of one shape. What they carry of precision and learned steps is
        replaced.
    task : name, `Task` or (x, y) as in `ssm.train`. Its test part is never looked at.
    precision : bits; b is no quantity of its own here, dB being folded into C.
    scheme : how weights are rounded: the form in which A is, ternary weights, learned steps.
    chip : whose cells disturb the weights, or one for every model. at_s : time since
        programming at which they are read.
    form : of A, "leapfrog" (the default with a chip: A on cells too) or "digital". decay :
        leapfrog: "tile" or "digital". Rounded states need form "digital".
    digital : parts in logic, without errors, as `deploy` takes them.
    read_errors : with a chip also what is new at every access: read noise, rounding by DACs, ADCs
        and state registers, noise of ADCs; False: only what lasts for a sequence.
    epochs, batch_size : passes over the data, and sequences of a step. weight_decay : of all
        weights but A. seed : of the order and of all errors drawn.
    lr, kernel_lr : peak learning rates; kernel_lr is that of A (default lr / 4).
    clip : largest norm of a run's gradient.
    ramp : share of the training over which errors of cells grow from 0 to their size and
        bits fall from 4 more to those asked for.
    device : a torch device; None is the GPU where there is one.
    validate : (x, y), scored after every epoch for `on_epoch`.
    checkpoint : file that keeps the state after every epoch; if it exists, training goes on
        from there, with the same result as without the stop.

    Errors: UsageError for settings out of range; InputError for data that cannot be learned from
    or do not fit the model, or a checkpoint of another training; DivergedError where the loss is
    no longer finite.
    """
    many: list[Model] = [models] if isinstance(models, Model) else list(models)
    name, x, y, n_classes = training_data(task)
    precision, scheme = precision or Precision(), scheme or Scheme()
    check_bits(precision, scheme)
    kernel_lr = lr / 4.0 if kernel_lr is None else kernel_lr
    check_settings(epochs, batch_size, lr, kernel_lr, weight_decay, 0.0)
    form = form or ("leapfrog" if chip is not None else "digital")
    _check(many, x, n_classes, precision, form, decay, digital, ramp, clip)
    chips: list[ChipSpec] = _one_for_each(chip, len(many), at_s)
    place = choose_device(device or default_device())
    start = [dataclasses.replace(model, task=name or model.task) for model in many]
    settings = (
        precision, at_s, form, decay, epochs, lr, kernel_lr, weight_decay, batch_size, clip,
        ramp, seed, [spec.model_dump_json() for spec in chips],
        *([] if scheme == Scheme() else [scheme]),
        *([(sorted(digital), read_errors)] if chips else []),
    )
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        on_chips = OnChips(chips, at_s, digital, read_errors)
        module = Trainable(start, precision, on_chips, form, decay, scheme).to(place)
        loop = _Loop(
            module, _tensors(x, y, place), None if validate is None else _tensors(*validate, place),
            epochs=epochs, batch_size=batch_size, clip=clip, ramp=ramp, seed=seed,
            optimizer=_optimizer(module, lr, kernel_lr, weight_decay),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            belongs_to=_fingerprint(start, x, y, settings), on_epoch=on_epoch,
        )
        loop.run()
    result: Any = module.to_models()
    return result[0] if isinstance(models, Model) else result


class _Loop:
    """The epochs of one training."""

    def __init__(
        self, module: Trainable, data: tuple[Tensor, Tensor],
        validation: tuple[Tensor, Tensor] | None, *, epochs: int, batch_size: int, clip: float,
        ramp: float, seed: int, optimizer: torch.optim.Optimizer, checkpoint: Path | None,
        belongs_to: str, on_epoch: Callable[[TunedEpoch], None] | None,
    ) -> None:
        self.module, (self.x, self.y), self.validation = module, data, validation
        self.epochs, self.batch_size, self.clip, self.ramp = epochs, batch_size, clip, ramp
        self.seed, self.optimizer, self.checkpoint = seed, optimizer, checkpoint
        self.belongs_to, self.on_epoch = belongs_to, on_epoch
        self.first = self.x[calibration_rows(self.y.cpu().numpy(), _CALIBRATION_ROWS)]
        self.precision = module.precision
        self.n_runs = len(module.start)
        self.steps_an_epoch = -(-len(self.x) // batch_size)
        self.n_steps = epochs * self.steps_an_epoch
        n_steps = max(self.n_steps, 2)
        # torch divides by the length of the warm-up, pct_start n_steps - 1: zero at ten steps
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=n_steps, pct_start=0.11 if n_steps == 10 else 0.1, cycle_momentum=False,
        )
        self.streak = torch.zeros(self.n_runs, device=self.x.device)
        self.skipped = torch.zeros(self.n_runs, device=self.x.device)

    def run(self) -> None:
        self.started = time.perf_counter()
        first = self._resume()
        if first == 1:
            self.module.calibrate(self.first)
            if self.on_epoch is not None:
                nothing = np.full(self.n_runs, np.nan)
                self._report(0, nothing, nothing)
        last_good = self.module.to_models()
        for number in range(first, self.epochs + 1):
            loss, right = self._epoch(number, last_good)
            if not are_sound(self.module.to_models):
                found = f"weights are not finite, or modes not stable, after epoch {number}"
                self._stop(found, last_good)
            last_good = self.module.to_models()
            self._keep(number)
            if self.on_epoch is not None:
                self._report(number, loss, right)
        self.module.eval()

    def _epoch(self, number: int, last_good: list[Model]) -> tuple[np.ndarray, np.ndarray]:
        # order and errors depend on the epoch's number alone: a resumed training draws the same
        torch.manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(len(self.x), device="cpu").to(self.x.device)
        self.module.set_row_ranges(self.first)
        self.module.train()
        total = torch.zeros(self.n_runs, device=self.x.device)
        right = torch.zeros(self.n_runs, device=self.x.device)
        step = (number - 1) * self.steps_an_epoch
        for rows in order.split(self.batch_size):
            step += 1
            self._set_schedules(step)
            loss, hits = self._step(rows)
            total += loss * len(rows)
            right += hits
            if step % _LOOK_EVERY == 0 or step == number * self.steps_an_epoch:
                self._check_finite(step, last_good)
        return (total / len(self.x)).cpu().numpy(), (right / len(self.x)).cpu().numpy()

    def _set_schedules(self, step: int) -> None:
        """Widen the bits and weaken the errors during the first part of the training."""
        if self.ramp == 0.0:
            return
        done = min(1.0, step / (self.ramp * self.n_steps))
        if self.module.chips.disturbance is not None:
            self.module.chips.disturbance.strength = done
        more = int(np.ceil(4.0 * (1.0 - done)))
        wider = {name: min(bits + more, _WIDEST) for name, bits in self.precision.given().items()}
        self.module.set_precision(Precision(**wider))

    def _step(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step; return loss (runs,) and the number classified rightly (runs,)."""
        logits = self.module(self.x[rows])
        labels = self.y[rows, None].expand(-1, self.n_runs)
        losses = functional.cross_entropy(logits.movedim(2, 1), labels, reduction="none").mean(0)
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        with torch.no_grad():
            self._clip_gradients(losses)
        self.optimizer.step()
        self.schedule.step()
        found = losses.detach()
        return torch.nan_to_num(found), (logits.argmax(dim=-1) == labels).sum(0)

    def _clip_gradients(self, losses: Tensor) -> None:
        """Clip every run's gradient; one that is not finite counts as none."""
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
        sound = torch.isfinite(squares) & torch.isfinite(losses)
        factor = (self.clip / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            shape = [-1, *[1] * (gradient.dim() - 1)]
            clipped = gradient * factor.view(shape)
            zero = torch.zeros_like(gradient)
            gradient.copy_(torch.where(sound.view(shape), clipped, zero))
        self.streak = torch.where(sound, torch.zeros_like(self.streak), self.streak + 1)
        self.skipped += ~sound

    def _check_finite(self, step: int, last_good: list[Model]) -> None:
        streak = int(self.streak.max())
        patience = _MOST_SKIPPED if self.module.chips.disturbance is not None else 1
        if streak < patience:
            return
        run = int(self.streak.argmax())
        first = step - streak + 1
        self._stop(f"loss or gradient of model {run} is not finite since step {first}", last_good)

    def _stop(self, found: str, last_good: list[Model]) -> NoReturn:
        error = DivergedError(
            f"training for {self.n_steps} steps was asked for",
            f"{found}{kept_in(self.checkpoint)}",
            "pass a smaller lr or kernel_lr, more bits, or a ramp",
        )
        error.last_good = last_good
        raise error

    def _report(self, number: int, loss: np.ndarray, accuracy: np.ndarray) -> None:
        assert self.on_epoch is not None
        self.on_epoch(
            TunedEpoch(
                number, self.epochs, loss, accuracy,
                None if self.validation is None else score(self.module, *self.validation),
                self.skipped.cpu().numpy().astype(int), time.perf_counter() - self.started,
            )
        )

    def _keep(self, number: int) -> None:
        if self.checkpoint is None:
            return
        state = {
            "epoch": number, "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            "skipped": self.skipped, "streak": self.streak,
        }
        write_state(self.checkpoint, self.belongs_to, state)

    def _resume(self) -> int:
        """Return the number of the first epoch to run."""
        if self.checkpoint is None:
            return 1
        state = read_state(self.checkpoint, self.belongs_to, self.x.device)
        if state is None:
            return 1
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.skipped, self.streak = state["skipped"], state["streak"]
        return int(state["epoch"]) + 1


@torch.no_grad()
def score(module: Trainable, x: Tensor, y: Tensor) -> np.ndarray:
    """Return the share of x (n, T, d_input) that every run classifies as y says, (runs,)."""
    was = module.training
    module.eval()
    parts = zip(x.split(_SCORED_AT_ONCE), y.split(_SCORED_AT_ONCE), strict=True)
    right = sum((module(a).argmax(dim=-1) == b[:, None]).sum(0) for a, b in parts)
    module.train(was)
    assert isinstance(right, Tensor)
    return np.asarray((right.double() / len(x)).cpu().numpy())


def _tensors(x: np.ndarray, y: np.ndarray, place: torch.device) -> tuple[Tensor, Tensor]:
    return (
        torch.as_tensor(np.ascontiguousarray(x), dtype=torch.float32, device=place),
        torch.as_tensor(np.ascontiguousarray(y), dtype=torch.int64, device=place),
    )


def _optimizer(
    module: Trainable, lr: float, kernel_lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    kernel, steps = module.kernel_parameters(), module.step_parameters()
    apart = {id(p) for p in [*kernel, *steps]}
    rest = [p for p in module.parameters() if id(p) not in apart]
    groups = [
        {"params": rest, "lr": lr, "weight_decay": weight_decay},
        {"params": kernel, "lr": kernel_lr, "weight_decay": 0.0},
    ]
    if steps:
        groups.append({"params": steps, "lr": lr, "weight_decay": 0.0})
    return torch.optim.AdamW(groups)


def _one_for_each(
    chip: ChipSpec | Sequence[ChipSpec] | None, n: int, at_s: float
) -> list[ChipSpec]:
    chips = [] if chip is None else [chip] * n if isinstance(chip, ChipSpec) else list(chip)
    if chips and len(chips) != n:
        raise UsageError(
            f"train {n} models for {len(chips)} chips", "their numbers differ",
            "pass one chip, or one for every model",
        )
    for spec in chips:
        check_time(spec.device, at_s)
    return chips


def _check(
    models: list[Model], x: np.ndarray, n_classes: int, precision: Precision, form: str,
    decay: str, digital: Collection[str], ramp: float, clip: float,
) -> None:
    asked = f"fine-tuning of {len(models)} model(s) was asked for"
    if not models:
        raise UsageError(asked, "there is none", "pass at least one model")
    first = models[0]
    shapes = {_shape(model) for model in models}
    if len(shapes) > 1:
        raise UsageError(
            asked, "they differ in shape or in norm, gate or pool", "train them one by one"
        )
    if x.shape[2] != first.d_input:
        raise InputError(
            asked, f"x has {x.shape[2]} feature(s) a step, the model reads {first.d_input}",
            f"give x the shape (n, time, {first.d_input})",
        )
    if n_classes > first.n_classes:
        raise InputError(
            asked, f"the labels run to {n_classes - 1}, the model has {first.n_classes} classes",
            f"number the classes from 0 to {first.n_classes - 1}, or train a model with more",
        )
    if form not in ("digital", "leapfrog"):
        raise UsageError(
            f"{asked} with form {form!r}", "training knows no such form",
            "choose digital or leapfrog",
        )
    if unknown := sorted(set(digital) - set(PARTS)):
        raise UsageError(
            f"{asked} with '{unknown[0]}' in logic", "the model has no such part",
            f"parts are {', '.join(PARTS)}",
        )
    if decay not in ("tile", "digital"):
        raise UsageError(f"{asked} with decay {decay!r}", "it is unknown", "choose tile or digital")
    if form == "leapfrog" and precision.state is not None:
        raise UsageError(
            asked, "states are rounded in the digital form alone", "pass form='digital'"
        )
    if precision.b is not None:
        raise UsageError(
            asked, "dB is folded into C here, so b has no bits of its own", "give c alone"
        )
    if not 0.0 <= ramp <= 1.0:
        raise UsageError(
            f"ramp = {ramp} was asked for", "it is a share of the training", "pass 0 to 1"
        )
    if not clip > 0.0:
        raise UsageError(f"clip = {clip} was asked for", "it is not positive", "pass 1")


def _shape(model: Model) -> tuple[Any, ...]:
    arrays = [getattr(model, name).shape for name in MODEL_ARRAYS]
    arrays += [layer.pole.shape for layer in model.layers]
    return (*arrays, model.norm, model.norm_kind, model.norm_epsilon, model.gate, model.pool)


def _fingerprint(
    models: Sequence[Model], x: np.ndarray, y: np.ndarray, settings: tuple[Any, ...]
) -> str:
    """Return a hash of everything that the result depends on."""
    digest = hashlib.sha256(repr(settings).encode())
    for model in models:
        digest.update(repr(_shape(model)).encode())
        arrays = [getattr(model, name) for name in MODEL_ARRAYS]
        arrays += [getattr(layer, name) for layer in model.layers for name in LAYER_ARRAYS]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
    for array in (x, y):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
