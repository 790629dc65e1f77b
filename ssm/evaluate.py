"""What a chip does to a model: accuracy and logit error, as trained, quantised and over time.

Chips and samples run in chunks; the answers depend on seed, chip and sample number alone, so
no chunking shows in them.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.aging import check_moment
from aimc_sim.errors import CapacityError, InputError, UsageError
from aimc_sim.specs import ChipSpec
from aimc_sim.tally import Tally, add_up, tally
from ssm.ablation import error_free, is_timeless, non_idealities, without
from ssm.correction import reads_of_correction
from ssm.deploy import Deployment, deploy
from ssm.engine import choose_engine
from ssm.inference import ProgrammedModel
from ssm.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]  # sequences done, sequences in all

_MODE_STEPS = 200_000_000  # of one compiled call: about two seconds between progress reports
_MODE_STEPS_OF_GPU = 30_000_000_000  # about a second
_CELLS = 1 << 24  # of one chunk of chips: about 200 MB with all their copies
_REFERENCE_SAMPLES = 32
_Z_95 = 1.959963984540054
_MOST_LOGITS = 1 << 30  # float32 numbers that are kept: 4 GiB


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Logits of the float model, of the quantised one and of sampled chips at several times.

    deployment : what ran. times_s : as asked for. y : (n,) labels or None.
    float_logits : (n, n_classes) float64, the digital reference of the unquantised model.
    quantized_logits : (n, n_classes) float32, error-free cells behind the chip's converters.
    chip_logits : (times, chips, n, n_classes) float32.
    unstable_modes : (times, chips), modes outside the unit circle before read noise.
    cells : what writing and faults left in the chips.
    saturation : part -> conversions that clipped and all of them, over chips and times.
    wall_s : duration.
    engine : "cpu" or "cuda", which ran the chips.
    """

    deployment: Deployment
    times_s: tuple[float, ...]
    y: NDArray[np.int64] | None
    float_logits: NDArray[np.float64]
    quantized_logits: NDArray[np.float32]
    chip_logits: NDArray[np.float32]
    unstable_modes: NDArray[np.int64]
    cells: Tally
    saturation: dict[str, tuple[int, int]]
    wall_s: float
    engine: str = "cpu"

    def __repr__(self) -> str:
        times, chips, n, _ = self.chip_logits.shape
        return (
            f"{n} sequences on {chips} chips of {self.deployment.spec.name} at {times} times, "
            f"in {self.wall_s:.2g} s"
        )

    @property
    def calibration_reads(self) -> int:
        """Reads that the compensation took of one chip at one time."""
        return reads_of_correction(self.deployment)

    @property
    def diverged(self) -> NDArray[np.int64]:
        """Number of (chip, sample) pairs with logits that are not finite, (times,)."""
        finite = np.isfinite(self.chip_logits).all(axis=-1)
        return np.asarray((~finite).sum(axis=(1, 2)), np.int64)

    def float_accuracy(self) -> float | None:
        """Return the share of right answers of the float model, None without labels."""
        return None if self.y is None else float(accuracy(self.float_logits, self.y))

    def quantized_accuracy(self) -> float | None:
        """Return the share of right answers of the quantised model, None without labels."""
        return None if self.y is None else float(accuracy(self.quantized_logits, self.y))

    def chip_accuracy(self) -> NDArray[np.float64] | None:
        """Return the share of right answers, (times, chips), None without labels."""
        return None if self.y is None else accuracy(self.chip_logits, self.y)

    def logit_error(self) -> list[float | None]:
        """Return the relative rms error of the chips' logits at every time."""
        return [relative_rms(logits, self.float_logits) for logits in self.chip_logits]


def accuracy(logits: NDArray[Any], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of right answers over the samples, the shape of logits without (n, classes).

    logits : (..., n, n_classes); one that is not finite makes its sample wrong. y : (n,).

    Examples
    --------
    >>> float(accuracy(np.array([[0.0, 1.0], [np.inf, 0.0]]), np.array([1, 0])))
    0.5
    """
    finite = np.isfinite(logits).all(axis=-1)
    best = np.where(finite[..., None], logits, 0).argmax(axis=-1)
    return np.asarray(((best == y) & finite).mean(axis=-1))


def confusion(logits: NDArray[Any], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each class (rows) got each answer (columns), over chips and samples.

    logits : (..., n, n_classes). y : (n,). Result (n_classes, n_classes + 1), the last column
    answers that were not finite.

    Examples
    --------
    >>> confusion(np.array([[0.0, 1.0], [np.inf, 0.0]]), np.array([1, 0])).tolist()
    [[0, 0, 1], [0, 1, 0]]
    """
    n = logits.shape[-1]
    finite = np.isfinite(logits).all(axis=-1)
    answer = np.where(finite, np.where(finite[..., None], logits, 0).argmax(axis=-1), n)
    place = (np.broadcast_to(y, answer.shape) * (n + 1) + answer).ravel()
    return np.bincount(place, minlength=n * (n + 1)).reshape(n, n + 1)


def relative_rms(logits: NDArray[Any], reference: NDArray[np.float64]) -> float | None:
    """Return rms(logits - reference) / rms(reference) over chips, samples and classes.

    Samples that are not finite are left out; None where none is left or the reference is zero.
    logits : (..., n, n_classes). reference : (n, n_classes).

    Examples
    --------
    >>> relative_rms(np.array([[1.5, 2.0]]), np.array([[1.0, 2.0]])) == (0.25 / 5) ** 0.5
    True
    """
    finite = np.isfinite(logits).all(axis=-1)
    scale = math.sqrt(float((reference**2).mean())) if reference.size else 0.0
    if not finite.any() or scale == 0.0:
        return None
    difference = (logits.astype(float) - reference)[finite]
    return math.sqrt(float((difference**2).mean())) / scale


def accuracy_bounds(per_chip: NDArray[np.float64], n_samples: int) -> tuple[float, float]:
    """Return the 95 % bounds of the mean accuracy over chips and samples.

    The half-width h adds two independent parts, the draw of n samples (binomial, common to all
    chips) and the draw of k chips (spread s of per_chip, Student's t with k - 1 degrees):
    h^2 = z^2 m (1 - m)/n + t^2 s^2/k, m the mean, z = 1.96. Wilson's score interval (Wilson
    1927, doi:10.1080/01621459.1927.10502953) with the effective number of samples
    z^2 m (1 - m)/h^2 then stays inside [0, 1]. One chip says nothing of the spread of others:
    its bounds are those of that chip.

    per_chip : (chips,) shares of right answers on the same n_samples.

    Examples
    --------
    >>> low, high = accuracy_bounds(np.array([1.0]), 100)
    >>> round(low, 3), high
    (0.963, 1.0)
    """
    chips, mean = len(per_chip), float(per_chip.mean())
    variance = mean * (1 - mean)
    effective = float(n_samples)
    if variance > 0:
        half_squared = _Z_95**2 * variance / n_samples
        if chips > 1:
            from scipy.special import stdtrit

            spread = float(per_chip.var(ddof=1))
            half_squared += float(stdtrit(chips - 1, 0.975)) ** 2 * spread / chips
        effective = _Z_95**2 * variance / half_squared
    z2 = _Z_95**2 / effective
    centre = (mean + z2 / 2) / (1 + z2)
    half = _Z_95 * math.sqrt(variance / effective + z2 / (4 * effective)) / (1 + z2)
    # exact at the ends, where rounding would leave a trace
    return 0.0 if mean == 0 else centre - half, 1.0 if mean == 1 else centre + half


def evaluate(
    model: Model,
    spec: ChipSpec,
    x: NDArray[np.floating],
    y: NDArray[np.int64] | None = None,
    *,
    form: str = "leapfrog",
    decay: str = "tile",
    chips: int = 1,
    seed: int = 0,
    times_s: Sequence[float] = (0.0,),
    calibrate: NDArray[np.floating] | None = None,
    calibration: str | None = None,
    limit: int | None = None,
    on_chip: Model | None = None,
    on_progress: Progress | None = None,
    engine: str = "cpu",
) -> Evaluation:
    """Return what sampled chips of kind `spec` answer at times after programming.

    Parameters
    ----------
    model : the float model, whose logits are the reference.
    x, y : (n, time, d_input) sequences and (n,) labels, or None.
    form, decay, calibrate, calibration : as in `ssm.deploy`.
    chips, seed : replicas 0 .. chips - 1 of that seed.
    times_s : seconds since programming, in any order.
    limit : score the first so many sequences only.
    on_chip : the quantised model that goes on the chip; None: `model` itself.
    on_progress : called with (sequences done, sequences in all) after every chunk.
    engine : "cpu", "cuda" or "auto" (see `ssm.engine`).

    Raises UsageError for a meaningless time, number of chips or limit, or an unknown engine;
    InputError for data that the model cannot read; CapacityError where the chip or the memory is
    too small.
    """
    begun = time.perf_counter()
    _check_request(x, y, chips, times_s, limit, model)
    for moment in times_s:
        check_moment(spec, moment)
    deployment = deploy(
        on_chip or model, spec, form, decay=decay, calibrate=calibrate, calibration=calibration
    )
    x, y = x[:limit], None if y is None else y[:limit]
    times = tuple(times_s)
    moments = (0.0,) if is_timeless(spec) else tuple(dict.fromkeys(times))
    exact = error_free(spec)
    n_runs = 1 + len(moments) * chips + int(exact != spec)
    count = _Counter(on_progress, len(x) * n_runs)
    reference = _reference(model, x, count)
    runs_on = choose_engine(engine, deployment)
    logits, unstable, cells, saturation = _run_chips(
        deployment, x, chips, seed, moments, count, runs_on
    )
    quantized = logits
    if exact != spec:
        silent = deployment.converters._replace(adc_noise=np.float32(0))
        clean = dataclasses.replace(deployment, spec=exact, converters=silent)
        quantized, *_ = _run_chips(clean, x, 1, seed, (0.0,), count, runs_on)
    if len(moments) < len(times):
        order = [0 if len(moments) == 1 else moments.index(moment) for moment in times]
        logits, unstable = logits[order], unstable[order]
    wall_s = time.perf_counter() - begun
    return Evaluation(
        deployment, times, y, reference, quantized[0, 0], logits, unstable, cells,
        saturation, wall_s, runs_on,
    )


class _Counter:
    """Counts sequences done and tells whoever listens."""

    def __init__(self, on_progress: Progress | None, total: int) -> None:
        self.on_progress, self.total, self.done = on_progress, total, 0

    def add(self, n: int) -> None:
        self.done += n
        if self.on_progress is not None:
            self.on_progress(self.done, self.total)


def _reference(model: Model, x: NDArray[np.floating], count: _Counter) -> NDArray[np.float64]:
    chunks = []
    for start in range(0, len(x), _REFERENCE_SAMPLES):
        chunk = x[start : start + _REFERENCE_SAMPLES]
        chunks.append(model.logits(chunk))
        count.add(len(chunk))
    return np.concatenate(chunks)


def _run_chips(
    deployment: Deployment,
    x: NDArray[np.floating],
    chips: int,
    seed: int,
    moments: Sequence[float],
    count: _Counter,
    engine: str,
) -> tuple[NDArray[np.float32], NDArray[np.int64], Tally, dict[str, tuple[int, int]]]:
    """Return logits (times, chips, n, classes), unstable modes (times, chips), cell counts and the
    conversions that clipped, of all."""
    logits = np.empty((len(moments), chips, len(x), deployment.model.n_classes), np.float32)
    unstable = np.zeros((len(moments), chips), np.int64)
    steps = x.shape[1] * deployment.network.sign.size
    at_once = _MODE_STEPS_OF_GPU if engine == "cuda" else _MODE_STEPS
    least = min(len(x), 16)
    together = min(_CELLS // max(deployment.layout.n_cells, 1), at_once // (steps * least))
    together = min(max(1, together), chips)
    samples = max(least, at_once // (steps * together))
    tallies = []
    saturation: dict[str, tuple[int, int]] = {}
    for start in range(0, chips, together):
        own = slice(start, min(start + together, chips))
        n_own = own.stop - own.start
        fresh = ProgrammedModel(deployment, seed, n_own, start)
        tallies.append(tally(fresh.chip))
        for k, moment in enumerate(moments):
            # one wait from programming, to the nanosecond, whatever the other times are
            programmed = ProgrammedModel(
                deployment, seed, n_own, start, fresh.chip.written
            ).wait(moment)
            unstable[k, own] = programmed.unstable_modes()
            for first in range(0, len(x), samples):
                part = slice(first, first + samples)
                run = programmed.infer(x[part], first_sample=first, engine=engine)
                logits[k, own, part] = run.logits
                for name, counts in run.saturation.items():
                    before = saturation.get(name, (0, 0))
                    saturation[name] = (before[0] + counts[0], before[1] + counts[1])
                count.add(n_own * len(x[part]))
    return logits, unstable, add_up(tallies), saturation


def vary(
    evaluation: Evaluation,
    x: NDArray[np.floating],
    *,
    seed: int = 0,
    alone: bool = False,
    on_progress: Progress | None = None,
    engine: str = "cpu",
) -> dict[str, NDArray[np.float32]]:
    """Return the chips' logits at the last time with one non-ideality changed at a time.

    Same seed, so the draws that remain are the same. Compensation stays on: "column" and
    "affine" also mend part of the programming error, so what it costs is what they leave.

    Parameters
    ----------
    evaluation : the run to vary. x, seed : as they were for it.
    alone : False switches each non-ideality off, the others on; True switches each on, the
        others off.
    engine : as in `evaluate`.

    Returns name -> (chips, n, n_classes).
    """
    before = evaluation.deployment
    chips, n = evaluation.chip_logits.shape[1:3]
    found = non_idealities(before.spec)
    count = _Counter(on_progress, len(found) * chips * n)
    result = {}
    for name in found:
        spec = without(before.spec, [key for key in found if (key != name) == alone])
        deployment = redeploy(before, spec)
        logits, *_ = _run_chips(
            deployment, x[:n], chips, seed, evaluation.times_s[-1:], count,
            choose_engine(engine, deployment),
        )
        result[name] = logits[0]
    return result


def redeploy(before: Deployment, spec: ChipSpec) -> Deployment:
    """Return the deployment on a chip that differs in its non-idealities alone."""
    if (spec.dac, spec.adc, spec.levels) == (before.spec.dac, before.spec.adc, before.spec.levels):
        return dataclasses.replace(before, spec=spec)
    return deploy(
        before.model, spec, before.form, decay=before.decay, calibrate=before.signal,
        digital=before.digital, calibration=before.calibration,
    )


def _check_request(
    x: NDArray[np.floating],
    y: NDArray[np.int64] | None,
    chips: int,
    times_s: Sequence[float],
    limit: int | None,
    model: Model,
) -> None:
    if chips < 1:
        raise UsageError(f"run {chips} chips", "that is none", "ask for at least one chip")
    if not times_s:
        raise UsageError("evaluate a chip", "no time was given", "give one such as 0s")
    if limit is not None and limit < 1:
        raise UsageError(f"score {limit} sequences", "that is none", "ask for at least one")
    if np.ndim(x) != 3 or np.shape(x)[2] != model.d_input or np.size(x) == 0:
        raise InputError(
            f"run data of shape {np.shape(x)}",
            f"the model reads {model.d_input} feature(s) a step",
            f"give an array (n, time, {model.d_input}) that is not empty",
        )
    if y is not None and np.shape(y) != (len(x),):
        raise InputError(
            "score answers",
            f"there are {len(x)} sequences and labels of shape {np.shape(y)}",
            "give one label a sequence",
        )
    n = len(x) if limit is None else min(limit, len(x))
    if (size := n * chips * len(times_s) * model.n_classes) > _MOST_LOGITS:
        raise CapacityError(
            f"run {n} sequences on {chips} chips at {len(times_s)} times",
            f"their logits are {size:.2g} numbers, at most {_MOST_LOGITS:.2g} are kept",
            "score fewer sequences, chips or times at once",
        )
