"""Signal and noise of every layer: what one part of a chip, with one non-ideality, does alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ssm.ablation import non_idealities, without
from ssm.evaluate import Progress, redeploy
from ssm.inference import ProgrammedModel
from ssm.kernels.network import A_PRODUCT, C_PRODUCT, MIX_PRODUCT, PER_LAYER, Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ssm.deploy import Deployment

ALL_CAUSES = "all"  # every non-ideality of the chip at once
ALL_LAYERS = "all layers"  # the whole network on the chip
MOST_SAMPLES = 64  # sequences of a budget, unless asked for more
_READ_NOISE = {"1/f noise", "white noise", "telegraph noise"}
_LAYER_NUMBERS = 1 << 23  # float32 numbers of layers' signals at once: 32 MB


@dataclass(frozen=True)
class Share:
    """What one cause in one part of the network does, alone.

    layer : "encoder", "layer 0 A", "layer 0 C", "layer 0 mixing", ..., "decoder", or all layers.
    cause : a non-ideality or a group of them, or all.
    signal_rms : of the error-free signal after that layer: over samples, steps and heads.
    relative_rms : rms error after that layer in units of signal_rms. logit_rms : rms error of
        the logits in units of their error-free rms. None: an answer was not finite.
    """

    layer: str
    cause: str
    signal_rms: float
    relative_rms: float | None
    logit_rms: float | None


@dataclass(frozen=True)
class Budget:
    """Shares of every part of the network on tiles and every cause; n_samples were run."""

    shares: tuple[Share, ...]
    n_samples: int
    chips: int
    at_s: float


def signal_budget(
    deployment: Deployment,
    x: NDArray[np.floating],
    *,
    seed: int = 0,
    chips: int = 1,
    at_s: float = 0.0,
    most: int = MOST_SAMPLES,
    on_progress: Progress | None = None,
) -> Budget:
    """Return how much error every layer's own cells and converters make, cause by cause.

    One part of the network (the encoder, A, C or the mixing matrix of a layer, the decoder) is
    on the chip, with one cause at a time; all other parts are exact and in digital logic. The
    error is the difference to the run in which every part is, on the same sequences: with the
    state registers as they are, but exact weights and no converters. It is taken where the
    part's layer ends (after the residual and the norm) and at the logits. Cells, draws and
    drift compensation are those of the chip as a whole. Independent small errors add in
    squares, so the squares of all shares come to about that of all layers with all causes.

    Parameters
    ----------
    deployment : the model on the chip. x : (n, time, d_input), of which the first `most` are run.
    seed, chips : replicas 0 .. chips - 1. at_s : seconds since programming.
    on_progress : called with (sequences done, sequences in all).

    Raises InputError for data that the model cannot read.
    """
    x = np.asarray(x)[:most]
    parts = network_parts(deployment.network)
    by_cause = list(_causes(deployment))
    names = [name for name, _ in by_cause]
    layers = np.zeros((len(parts), len(by_cause)))
    logits = np.zeros_like(layers)
    signal = np.zeros(deployment.model.n_layers + 2)
    total = len(x) * chips * layers.size
    done = 0
    for first, chunk in _chunks(deployment, x):
        exact = _Traces(ProgrammedModel(deployment, seed).only(()), chunk, first)
        signal += [float((values**2).sum()) for values in exact.outputs]
        for chip in range(chips):
            for k, (_, changed) in enumerate(by_cause):
                programmed = ProgrammedModel(changed, seed, 1, chip).wait(at_s)
                for p, part in enumerate(parts):
                    run = _Traces(programmed.only(part.products), chunk, first)
                    with np.errstate(invalid="ignore", over="ignore"):
                        layers[p, k] += _squares(run.outputs[part.ends], exact.outputs[part.ends])
                        logits[p, k] += _squares(run.outputs[-1], exact.outputs[-1])
                    done += len(chunk)
                    if on_progress is not None:
                        on_progress(done, total)
    numbers = len(x) * np.array(
        [x.shape[1] * deployment.network.n_heads] * (len(signal) - 1) + [deployment.model.n_classes]
    )
    shares = [
        Share(
            part.name, name, math.sqrt(signal[part.ends] / numbers[part.ends]),
            _root(layers[p, k] / chips, signal[part.ends]), _root(logits[p, k] / chips, signal[-1]),
        )
        for p, part in enumerate(parts)
        for k, name in enumerate(names)
    ]
    return Budget(tuple(shares), len(x), chips, at_s)


@dataclass(frozen=True)
class NetworkPart:
    """Products that share a name; ends : where its layer ends, 0 the encoder, -1 the logits."""

    name: str
    products: tuple[int, ...]
    ends: int


def network_parts(network: Network) -> list[NetworkPart]:
    """Return the parts of the network that are on tiles, in the order of the signal; last all."""
    last = network.analog.size - 1
    found = [NetworkPart("encoder", (0,), 0)]
    for layer in range(network.mode_first.size - 1):
        first = 1 + layer * PER_LAYER
        for name, products in (
            ("A", range(first + A_PRODUCT, first + C_PRODUCT)),
            ("C", (first + C_PRODUCT,)),
            ("mixing", (first + MIX_PRODUCT,)),
        ):
            found.append(NetworkPart(f"layer {layer} {name}", tuple(products), layer + 1))
    found.append(NetworkPart("decoder", (last,), -1))
    found = [part for part in found if network.analog[list(part.products)].any()]
    return [*found, NetworkPart(ALL_LAYERS, tuple(range(last + 1)), -1)]


def group_of_cause(name: str) -> str:
    """Return the cause that a non-ideality counts under.

    Examples
    --------
    >>> group_of_cause("1/f noise"), group_of_cause("ADC noise"), group_of_cause("drift")
    ('read noise', 'ADC', 'drift')
    """
    if name in _READ_NOISE:
        return "read noise"
    for converter in ("DAC", "ADC"):
        if name.startswith(converter):
            return converter
    return name


def _causes(deployment: Deployment) -> Iterator[tuple[str, Deployment]]:
    """Return every cause and the deployment on a chip that has it alone; last all of them."""
    spec = deployment.spec
    found = list(non_idealities(spec))
    for cause in dict.fromkeys(group_of_cause(name) for name in found):
        others = [name for name in found if group_of_cause(name) != cause]
        yield cause, redeploy(deployment, without(spec, others))
    if found:
        yield ALL_CAUSES, deployment


def _chunks(deployment: Deployment, x: NDArray[np.floating]) -> Iterator[tuple[int, np.ndarray]]:
    """Return (number of the first sequence, sequences) of pieces that memory holds."""
    traced = x.shape[1] * (deployment.model.n_layers + 1) * deployment.network.n_heads
    n = max(1, _LAYER_NUMBERS // traced)
    for first in range(0, len(x), n):
        yield first, x[first : first + n]


class _Traces:
    """outputs : signal after the encoder and every layer, (n, time, H), and the logits, float64."""

    def __init__(self, programmed: ProgrammedModel, x: np.ndarray, first_sample: int) -> None:
        run = programmed.infer(x, first_sample=first_sample, return_layers=True)
        assert run.layers is not None
        signals = np.moveaxis(run.layers[0].astype(float), 2, 0)
        self.outputs: list[np.ndarray] = [*signals, run.logits.astype(float)]


def _squares(found: np.ndarray, exact: np.ndarray) -> float:
    return float(((found - exact) ** 2).sum())


def _root(error: float, signal: float) -> float | None:
    share = math.sqrt(error / signal) if signal > 0 and error >= 0 else math.inf
    return share if math.isfinite(share) else None
