"""Torch layers whose answers a programmed chip gives, inside a user's own model.

Forward is the chip, backward the float layer: a straight-through gradient (Bengio et al.,
"Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation",
2013, doi:10.48550/arXiv.1308.3432).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from aimc_sim.errors import InputError, UsageError
from aimc_sim.matrix import AnalogMatrix, map_matrix
from aimc_sim.specs import ChipSpec, check_chip
from ssm.deploy import deploy
from ssm.layers import Block, Classifier, Linear
from ssm.train import to_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from aimc_sim.chip import Chip
    from ssm.inference import ProgrammedModel

_SCHEMA = "aimc-sim.chip-layer/1"
_FACTS = ("seed", "chip_number", "reads", "clock_ns", "age_ns")
_ASKED = "put a layer on a chip"


class ChipLayer(nn.Module):
    """A layer on a programmed chip: forward is what the chip answers, backward the float layer's.

    The weights are those of the wrapped layer, and an optimiser finds them as its parameters.
    They are written to the chip before the first call, and again before a call that finds them
    changed; the clock then starts anew.

    Parameters
    ----------
    layer : nn.Linear or ssm.layers.Linear (its matrix on tiles, the bias in logic), for inputs
        (..., n_in); or ssm.layers.Block, a whole S4D layer with its recurrence step by step, for
        inputs (n, time, H) from zero states. Dropout and weight noise of the layer act on the
        gradient alone.
    spec : the chip.
    seed, chip_number : which sampled chip. Two layers of a model must differ in one of them, or
        their cells err alike (`on_chip` sees to it).
    calibrate : inputs (n, n_in), or (n, time, H) of a Block, that set the ranges of converters. A
        Block needs them; without, every vector of a Linear is scaled to its largest element.
    at : seconds since writing, or text such as "1d", at which every write is read.
    reads : "fresh" draws read noise anew at every call, "same" has that of the first call.
    chips : "one" writes to the same chip again and again, "new" to the next one at each write, so
        that a training sees many of them.
    options : of a Block, form, decay and digital as `ssm.deploy` takes them.

    Attributes
    ----------
    on_chip : False lets the float layer answer instead.
    reads_so_far : vectors, or sequences of a Block, that were read since writing.

    The state dict holds the layer's parameters under `layer.`, the calibration, and which chip it
    is at which time: loaded into a layer of the same chip, it answers bit for bit as before.

    Raises UsageError for a layer of another class, an option that is unknown, a Block without
    calibration.

    Examples
    --------
    >>> layer = ChipLayer(nn.Linear(2, 1, bias=False), ChipSpec.preset("ideal"))
    >>> _ = layer.layer.weight.data.copy_(torch.tensor([[1.0, 2.0]]))
    >>> layer(torch.tensor([[3.0, 4.0]])).item()
    11.0
    """

    calibrate: Tensor | None

    def __init__(
        self,
        layer: nn.Module,
        spec: ChipSpec,
        *,
        seed: int = 0,
        chip_number: int = 0,
        calibrate: ArrayLike | Tensor | None = None,
        at: float | str = 0.0,
        reads: Literal["fresh", "same"] = "fresh",
        chips: Literal["one", "new"] = "one",
        **options: Any,
    ) -> None:
        super().__init__()
        check_chip(spec, _ASKED)
        for name, value, known in (
            ("reads", reads, ("fresh", "same")), ("chips", chips, ("one", "new"))
        ):
            if value not in known:
                raise UsageError(
                    f"{_ASKED} with {name} = '{value}'", "it is unknown",
                    f"choose {known[0]} or {known[1]}",
                )
        self.layer, self.spec = layer, spec
        self.seed, self.chip_number = seed, chip_number
        self.at, self.reads, self.chips = at, reads, chips
        self.on_chip = True
        self.reads_so_far = 0
        given = None if calibrate is None else torch.as_tensor(np.asarray(
            calibrate.detach().cpu() if isinstance(calibrate, Tensor) else calibrate, np.float32
        ))
        self.register_buffer("calibrate", given)
        self._host: _Host = _host_of(layer, spec, given is not None, options)
        self._programmed: AnalogMatrix | ProgrammedModel | None = None
        self._written: list[Tensor] = []  # what the cells were asked for
        self._clock: tuple[int, int] | None = None  # to set after writing; None: `at`

    def extra_repr(self) -> str:
        """Return the chip, for print."""
        return f"on {self.spec.name}, seed {self.seed}, chip {self.chip_number}"

    def forward(self, x: Tensor) -> Tensor:
        """Return what the chip answers, in shape, type and gradient as the float layer would.

        x : (..., n_in) for a linear layer, (n, time, H) for a Block.
        Raises InputError for inputs that are not finite or of another width.
        """
        if not self.on_chip:
            return self._float(x)
        answer = torch.from_numpy(self._answer(x.detach())).to(x.device, self._dtype())
        wants = x.requires_grad or any(p.requires_grad for p in self.layer.parameters())
        if not (torch.is_grad_enabled() and wants):
            return answer
        through: Tensor = _Through.apply(self._float(x), answer)
        return through

    def program(self) -> ChipLayer:
        """Write the weights as they are now, whether they have changed or not; return the layer.

        The clock starts anew at `at`; with chips = "new" it is the next chip.
        """
        self._write(again=self._programmed is not None)
        return self

    def wait(self, seconds: float | str, temperature_k: float | None = None) -> ChipLayer:
        """Let time pass for the chip; return the layer.

        seconds, temperature_k : as of `aimc_sim.Chip.wait`. UsageError for times that it refuses.
        """
        self._current().wait(seconds, temperature_k)
        return self

    @property
    def programmed(self) -> AnalogMatrix | ProgrammedModel:
        """The programmed matrix, or model of one layer; written now where it was not yet."""
        return self._current()

    @property
    def time_s(self) -> float:
        """Seconds since the weights were written."""
        return self._chip().time_s

    def get_extra_state(self) -> dict[str, Any]:
        """Return which chip this is and at which moment, for the state dict."""
        clock = self._clock_now()
        return {
            "schema": _SCHEMA, "spec": self.spec.to_toml(), "seed": self.seed,
            "chip_number": self.chip_number, "reads": self.reads_so_far,
            "clock_ns": -1 if clock is None else clock[0],
            "age_ns": -1 if clock is None else clock[1],
        }

    def set_extra_state(self, state: Any) -> None:
        """Become the chip of a state dict. Raises InputError where it is one of another kind."""
        asked = "load the state of a chip layer"
        fits = isinstance(state, dict) and state.get("schema") == _SCHEMA and all(
            type(state.get(name)) is int for name in _FACTS
        )
        if not fits:
            raise InputError(
                asked, "it does not say which chip it is of", "load a state dict of such a layer"
            )
        if state["spec"] != self.spec.to_toml():
            raise InputError(
                asked, f"it is of another chip than '{self.spec.name}'",
                "make the layer with the ChipSpec that it was saved with",
            )
        self.seed, self.chip_number = state["seed"], state["chip_number"]
        self.reads_so_far = state["reads"]
        known = state["clock_ns"] >= 0
        self._clock = (state["clock_ns"], state["age_ns"]) if known else None
        self._programmed = None

    def __getstate__(self) -> dict[str, Any]:
        # a programmed chip holds locks; it is written again from its seed, with the same draws
        clock = self._clock_now()
        return self.__dict__ | {"_clock": clock, "_programmed": None, "_written": []}

    def _float(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y

    def _dtype(self) -> torch.dtype:
        return next(self.layer.parameters()).dtype

    def _answer(self, x: Tensor) -> np.ndarray:
        numbers = np.asarray(x.cpu().float())
        programmed = self._current()
        first = self.reads_so_far if self.reads == "fresh" else 0
        y, n_reads = self._host.run(programmed, numbers, first)
        self.reads_so_far += n_reads
        return y

    def _chip(self) -> Chip:
        return self._current().chip

    def _clock_now(self) -> tuple[int, int] | None:
        if self._programmed is None:
            return self._clock
        return self._programmed.chip.clock_ns, self._programmed.chip.age_ns

    def _current(self) -> AnalogMatrix | ProgrammedModel:
        """Return the programmed chip, written anew where the weights have changed."""
        if self._programmed is None:
            return self._write(again=False)
        now = list(self._host.weights())
        if all(torch.equal(a, b) for a, b in zip(now, self._written, strict=True)):
            return self._programmed
        return self._write(again=True)

    def _write(self, *, again: bool) -> AnalogMatrix | ProgrammedModel:
        if again:
            self._clock, self.reads_so_far = None, 0
            self.chip_number += self.chips == "new"
        given = None if self.calibrate is None else self.calibrate.cpu().numpy()
        programmed = self._host.program(given, self.seed, self.chip_number)
        if self._clock is None:
            programmed.wait(self.at)
        else:
            programmed.chip.clock_ns, programmed.chip.age_ns = self._clock
        self._programmed = programmed
        self._written = [weight.detach().clone() for weight in self._host.weights()]
        return programmed


def on_chip(module: nn.Module, spec: ChipSpec, *, seed: int = 0, **options: Any) -> nn.Module:
    """Return a model with every nn.Linear in it on the chip, changed in place.

    module : the model. spec : the chip. seed : from it and their order layers get seeds of their
    own. options : as of ChipLayer.
    Linear layers of other classes (such as the output of attention, whose weights torch reads
    without calling it) stay as they are.

    Raises UsageError where there is none.
    """
    found = [
        (parent, name, child) for parent in list(module.modules())
        if not isinstance(parent, ChipLayer)
        for name, child in parent.named_children() if type(child) is nn.Linear
    ]
    if not found:
        raise UsageError(
            "put a model on a chip", f"{type(module).__name__} holds no nn.Linear",
            "wrap its layers in ssm.ChipLayer one by one",
        )
    for k, (parent, name, child) in enumerate(found):
        own = int(np.random.SeedSequence([seed, k]).generate_state(1)[0])
        setattr(parent, name, ChipLayer(child, spec, seed=own, **options))
    return module


class _Through(torch.autograd.Function):
    """The chip's answer forward, the gradient of the float answer backward."""

    @staticmethod
    def forward(ctx: Any, wanted: Tensor, answer: Tensor) -> Tensor:
        assert wanted.shape == answer.shape
        return answer.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Host(Protocol):
    """How a layer comes onto a chip."""

    def weights(self) -> Iterator[Tensor]:
        """Return what is written."""

    def program(
        self, calibrate: np.ndarray | None, seed: int, number: int
    ) -> AnalogMatrix | ProgrammedModel:
        """Return the layer on a sampled chip."""

    def run(self, programmed: Any, x: np.ndarray, first: int) -> tuple[np.ndarray, int]:
        """Return the answers to x, and how many vectors or sequences were read."""


def _host_of(layer: nn.Module, spec: ChipSpec, calibrated: bool, options: dict[str, Any]) -> _Host:
    if isinstance(layer, nn.Linear | Linear):
        if options:
            raise UsageError(
                f"{_ASKED} with {', '.join(options)}", "a matrix has no such options",
                "leave them out",
            )
        return _MatrixHost(layer, spec)
    if not isinstance(layer, Block):
        raise UsageError(
            f"{_ASKED} of class {type(layer).__name__}", "it is not known how to",
            "give an nn.Linear or an ssm.layers.Block (of S4D the whole layer); recurrent cells "
            "from their matrices, see examples/20_torch_layers.py",
        )
    if not calibrated:
        raise UsageError(
            f"{_ASKED} of class Block", "its converters have no ranges",
            "give typical inputs (n, time, H) as calibrate",
        )
    unknown = set(options) - {"form", "decay", "digital"}
    if unknown:
        raise UsageError(
            f"{_ASKED} with {', '.join(sorted(unknown))}", "there is no such option",
            "options are form, decay and digital",
        )
    return _BlockHost(layer, spec, options)


class _MatrixHost:
    """y = x @ w + b: the matrix on tiles, the bias in logic."""

    def __init__(self, layer: nn.Linear | Linear, spec: ChipSpec) -> None:
        self.layer, self.spec = layer, spec

    def weights(self) -> Iterator[Tensor]:
        yield self.layer.weight.detach()

    def program(self, calibrate: np.ndarray | None, seed: int, number: int) -> AnalogMatrix:
        w = self.layer.weight.detach().cpu().double().numpy()
        w = w.T if isinstance(self.layer, nn.Linear) else w
        return map_matrix(w, self.spec, calibrate).program(seed, number)

    def run(self, programmed: AnalogMatrix, x: np.ndarray, first: int) -> tuple[np.ndarray, int]:
        n_in, n_out = programmed.mapped.w.shape
        if x.ndim == 0 or x.shape[-1] != n_in:
            raise InputError(
                f"run a layer on inputs of shape {x.shape}", f"it takes {n_in} features",
                f"give an array (..., {n_in})",
            )
        rows = np.ascontiguousarray(x.reshape(-1, n_in))
        y = programmed.mvm(rows, first_read=first) if len(rows) else np.empty((0, n_out))
        if self.layer.bias is not None:
            y = y + self.layer.bias.detach().cpu().float().numpy()
        return y.reshape(*x.shape[:-1], n_out), len(rows)


class _BlockHost:
    """A whole S4D layer: its model has no encoder and no decoder on the chip."""

    def __init__(self, block: Block, spec: ChipSpec, options: dict[str, Any]) -> None:
        self.block, self.spec = block, spec
        digital = ("encoder", "decoder", *options.get("digital", ()))
        self.options = {**options, "digital": digital}

    def weights(self) -> Iterator[Tensor]:
        for parameter in self.block.parameters():
            yield parameter.detach()

    def program(self, calibrate: np.ndarray | None, seed: int, number: int) -> ProgrammedModel:
        n_heads = self.block.mix.weight.shape[0]
        network = Classifier(
            n_heads, 1, n_heads=n_heads, n_states=2, n_layers=1, norm=self.block.norm_position
        )
        with torch.no_grad():
            network.encoder.weight.copy_(torch.eye(n_heads))
            for zero in (network.encoder.bias, network.decoder.weight, network.decoder.bias):
                zero.zero_()
        network.blocks = nn.ModuleList([self.block])
        model = to_model(network, name="layer")
        deployed = deploy(model, self.spec, calibrate=calibrate, **self.options)
        return deployed.program(seed, first_chip=number)

    def run(self, programmed: ProgrammedModel, x: np.ndarray, first: int
            ) -> tuple[np.ndarray, int]:
        run = programmed.infer(x, first_sample=first, return_layers=True)
        assert run.layers is not None
        return np.ascontiguousarray(run.layers[0, :, :, 1]), len(x)
