"""Training of S4D classifiers in float, in convolution mode.

>>> model = train("digits", n_heads=8, n_states=8, n_layers=1, epochs=1)
>>> model.n_heads, model.n_classes
(8, 10)
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from aimc_sim.errors import AimcError, InputError, UsageError
from ssm.layers import S4D, Block, Classifier
from ssm.model import Layer, Model
from ssm.resume import read_state, write_state
from ssm.tasks import Task
from ssm.training_data import check_classes, check_settings, training_data


class DivergedError(AimcError):
    """The loss or the weights are no longer finite.

    last_good : the models after the last whole epoch, or before the first.
    """

    last_good: list[Model]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training data gave.

    Attributes
    ----------
    number, n_epochs : this pass, from 1, of how many.
    loss : mean training loss, in nats.
    accuracy : share of training sequences classified rightly, with dropout and noise on.
    wall_s : seconds since the training began.
    """

    number: int
    n_epochs: int
    loss: float
    accuracy: float
    wall_s: float


def train(
    task: str | Task | tuple[np.ndarray, np.ndarray],
    *,
    n_heads: int = 64,
    n_states: int = 64,
    n_layers: int = 2,
    norm: str = "post",
    epochs: int = 20,
    lr: float = 1e-2,
    kernel_lr: float | None = None,
    weight_decay: float = 0.01,
    batch_size: int = 64,
    seed: int = 0,
    dropout: float = 0.0,
    weight_noise: float = 0.0,
    label_smoothing: float = 0.0,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
    device: str | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Model:
    """Return an S4D classifier trained on the task's training sequences.

    AdamW with one learning-rate cycle (warm-up, then cosine to zero); cross-entropy.
    Features are standardised over the training data and the encoder undoes it exactly, so
    that the model takes x as it is: without, training starts with a long plateau. The test
    part of a task is never looked at. On the CPU the result is a function of the arguments
    and of the number of torch threads, bit for bit; torch's global random state is left as
    it was.

    Parameters
    ----------
    task : name of a task, a `Task`, or (x, y): x (n, time, features) and y (n,) classes.
    n_heads, n_states, n_layers, norm : as in `ssm.layers.Classifier`; n_states counts the
        real states of one head.
    epochs, batch_size : passes over the data and sequences per step.
    lr, kernel_lr : peak learning rates; kernel_lr is that of dt and A (default lr / 10).
    weight_decay : of all weights but dt and A.
    seed : fixes start values, order, dropout and noise.
    dropout, weight_noise, label_smoothing : fractions in [0, 1); weight_noise is the
        relative error drawn anew for all weights in each step.
    dt_min, dt_max : bounds of the time steps at the start.
    device : a torch device, such as "cuda"; None is the CPU.
    on_epoch : called with an `Epoch` after every pass.
    checkpoint : file that keeps the state after every pass; if it exists, training goes on
        from there, with the same result as without the stop.

    Errors: UsageError for arguments out of range; InputError for data that cannot be
    learned from (shapes, labels, no rows, not finite), or a checkpoint of another training;
    DivergedError where the loss is no longer finite, with the step and the last good model.
    """
    name, x, y, n_classes = training_data(task)
    kernel_lr = lr / 10.0 if kernel_lr is None else kernel_lr
    check_settings(epochs, batch_size, lr, kernel_lr, weight_decay, label_smoothing)
    place = choose_device(device)
    cuda = [place] if place.type == "cuda" else []
    if isinstance(task, tuple):  # the classes of a task are what it says
        check_classes(y, n_classes)
    mean, spread = _feature_scales(x)
    settings = (
        n_heads, n_states, n_layers, norm, epochs, lr, kernel_lr, weight_decay, batch_size, seed,
        dropout, weight_noise, label_smoothing, dt_min, dt_max,
    )

    def finished(module: Classifier) -> Model:
        model = to_model(module, task=name)
        weight = model.encoder_weight / spread[:, np.newaxis]
        return model.replace(
            encoder_weight=weight, encoder_bias=model.encoder_bias - mean @ weight
        )

    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        module = Classifier(
            x.shape[2],
            n_classes,
            n_heads=n_heads,
            n_states=n_states,
            n_layers=n_layers,
            norm=norm,
            dropout=dropout,
            weight_noise=weight_noise,
            dt_min=dt_min,
            dt_max=dt_max,
        ).to(place)
        optimizer = _optimizer(module, lr, kernel_lr, weight_decay)
        try:
            _fit(
                module,
                optimizer,
                torch.tensor((x - mean) / spread, dtype=torch.float32, device=place),
                torch.tensor(y, dtype=torch.int64, device=place),
                epochs=epochs,
                batch_size=batch_size,
                label_smoothing=label_smoothing,
                on_epoch=on_epoch,
                checkpoint=None if checkpoint is None else Path(checkpoint),
                belongs_to=_fingerprint(x, y, settings),
            )
        except DivergedError as error:
            error.last_good = [finished(module)]
            raise
    return finished(module)


def start_models(
    seeds: Sequence[int],
    *,
    d_input: int,
    n_classes: int,
    n_heads: int = 64,
    n_states: int = 64,
    n_layers: int = 2,
    norm: str = "post",
    task: str | None = None,
) -> list[Model]:
    """Return untrained models of one shape, one for every seed, for `ssm.fine_tune`.

    seeds : of the start values. d_input, n_classes : features a step, and classes.
    n_heads, n_states, n_layers, norm : as in `train`. task : name that the models carry.

    Start values are those of `ssm.layers.Classifier`; torch's global random state is left as it
    was. Errors: UsageError for numbers or a norm out of range.
    """
    models = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = Classifier(
                d_input, n_classes, n_heads=n_heads, n_states=n_states, n_layers=n_layers, norm=norm
            )
        models.append(to_model(module, task=task))
    return models


def _feature_scales(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (features,); 1 for a feature that is constant."""
    features = x.reshape(-1, x.shape[2]).astype(np.float64)
    spread = features.std(axis=0)
    return features.mean(axis=0), np.where(spread > 0.0, spread, 1.0)


def _fit(
    module: Classifier,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    batch_size: int,
    label_smoothing: float,
    on_epoch: Callable[[Epoch], None] | None,
    checkpoint: Path | None,
    belongs_to: str,
) -> None:
    """Run the epochs; x (n, time, features), y (n,) on the module's device."""
    n = len(x)
    n_steps = epochs * -(-n // batch_size)
    # A cycle needs two steps at least; a single one runs at the start of the warm-up.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=max(n_steps, 2),
        cycle_momentum=False,
    )
    start, done = time.perf_counter(), 0
    kept = None if checkpoint is None else read_state(checkpoint, belongs_to, x.device)
    if kept is not None:
        module.load_state_dict(kept["module"])
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        _set_random_state(kept, x.device)
        done = kept["epoch"]
    step = done * -(-n // batch_size)
    good = copy.deepcopy(module.state_dict())

    def stop(found: str) -> NoReturn:
        module.load_state_dict(good)
        raise DivergedError(
            f"training for {n_steps} steps was asked for",
            f"{found}{kept_in(checkpoint)}",
            "pass a smaller lr or kernel_lr, or a norm other than 'none'",
        )

    module.train()
    for number in range(done + 1, epochs + 1):
        order = torch.randperm(n).to(x.device)
        total_loss, n_right = 0.0, 0
        for rows in order.split(batch_size):
            step += 1
            logits = module(x[rows])
            loss = functional.cross_entropy(logits, y[rows], label_smoothing=label_smoothing)
            loss_value = loss.item()
            if not np.isfinite(loss_value):
                stop(f"the loss became {loss_value} at step {step} (epoch {number})")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total_loss += loss_value * len(rows)
            n_right += int((logits.argmax(dim=1) == y[rows]).sum())
        if not are_sound(lambda: [to_model(module)]):
            stop(f"weights are not finite, or modes not stable, after step {step} (epoch {number})")
        good = copy.deepcopy(module.state_dict())
        if checkpoint is not None:
            state = {
                "epoch": number, "module": module.state_dict(),
                "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
                **_random_state(x.device),
            }
            write_state(checkpoint, belongs_to, state)
        if on_epoch is not None:
            wall_s = time.perf_counter() - start
            on_epoch(Epoch(number, epochs, total_loss / n, n_right / n, wall_s))
    module.eval()


def are_sound(make: Callable[[], Sequence[Model]]) -> bool:
    """Return whether models can be made: weights finite and all poles inside the unit circle."""
    try:
        with np.errstate(all="ignore"):
            models = make()
    except InputError:  # a model refuses what is not finite
        return False
    poles = [layer.pole for model in models for layer in model.layers]
    return all(bool((np.abs(pole) < 1).all()) for pole in poles)


def kept_in(checkpoint: Path | None) -> str:
    """Return where the last whole epoch of a diverged training lies, in words."""
    there = checkpoint is not None and checkpoint.exists()
    return f"; {checkpoint} holds the last whole epoch" if there else ""


def _random_state(place: torch.device) -> dict[str, Tensor]:
    state = {"random": torch.get_rng_state()}
    if place.type == "cuda":
        state["random_cuda"] = torch.cuda.get_rng_state(place)
    return state


def _set_random_state(state: dict[str, Any], place: torch.device) -> None:
    torch.set_rng_state(state["random"].cpu())
    if place.type == "cuda":
        torch.cuda.set_rng_state(state["random_cuda"].cpu(), place)


def _fingerprint(x: np.ndarray, y: np.ndarray, settings: tuple[Any, ...]) -> str:
    """Return a hash of everything that the result depends on."""
    digest = hashlib.sha256(repr(settings).encode())
    for array in (x, y):
        digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def to_model(module: Classifier, *, task: str | None = None, name: str = "s4d") -> Model:
    """Return the module's network as a discretised float64 `Model`.

    dA and dB are computed in float64 from the trained parameters, so the model's logits are
    those of `module.double()` to rounding.
    """
    n_heads = module.encoder.weight.shape[1]
    return Model(
        encoder_weight=_array(module.encoder.weight),
        encoder_bias=_array(module.encoder.bias),
        layers=tuple(_layer(block, n_heads) for block in module.blocks),
        decoder_weight=_array(module.decoder.weight),
        decoder_bias=_array(module.decoder.bias),
        norm=module.norm_position,
        norm_kind="layer",
        norm_epsilon=1e-5,
        disc="zoh",
        pool="mean",
        activation="gelu",
        gate="glu",
        task=task,
        precision=None,
        name=name,
        sha256="",
    )


def _layer(block: torch.nn.Module, n_heads: int) -> Layer:
    assert isinstance(block, Block)
    s4d: S4D = block.s4d
    a = -np.exp(_array(s4d.log_a_real)) + 1j * _array(s4d.a_imag)
    pole = np.exp(np.exp(_array(s4d.log_dt))[:, np.newaxis] * a)
    readout = _array(s4d.readout)
    has_norm = isinstance(block.norm, torch.nn.LayerNorm)
    return Layer(
        pole=pole,
        drive=(pole - 1.0) / a,
        readout=readout[..., 0] + 1j * readout[..., 1],
        mode_weight=np.full(pole.shape, 2.0),
        skip=_array(s4d.skip),
        mix_weight=_array(block.mix.weight),
        mix_bias=_array(block.mix.bias),
        norm_scale=_array(block.norm.weight) if has_norm else np.ones(n_heads),
        norm_shift=_array(block.norm.bias) if has_norm else np.zeros(n_heads),
    )


def _array(tensor: object) -> np.ndarray:
    assert isinstance(tensor, Tensor)
    return tensor.detach().cpu().double().numpy().copy()


def _optimizer(
    module: Classifier, lr: float, kernel_lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    parts = [part for part in module.modules() if isinstance(part, S4D)]
    kernel = [p for part in parts for p in part.kernel_parameters()]
    in_kernel = {id(p) for p in kernel}
    others = [p for p in module.parameters() if id(p) not in in_kernel]
    return torch.optim.AdamW(
        [
            {"params": others, "lr": lr, "weight_decay": weight_decay},
            {"params": kernel, "lr": kernel_lr, "weight_decay": 0.0},
        ]
    )


def default_device() -> str:
    """Return "cuda" where there is a GPU that torch can use, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_device(device: str | None) -> torch.device:
    """Return a torch device, None: the CPU; UsageError where torch cannot use it."""
    try:
        place = torch.device(device or "cpu")
    except RuntimeError:
        raise UsageError(
            f"device {device!r} was asked for", "torch knows no device of that name",
            "choose cpu or cuda, or leave device out",
        ) from None
    try:
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device {device!r} was asked for",
            f"torch cannot use it ({str(error).splitlines()[0]})",
            "leave device out to train on the CPU",
        ) from error
    return place
