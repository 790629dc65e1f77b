"""Model: a discretised diagonal state-space network as plain arrays, and its reference run.

The run is the digital oracle of the project: float64, one time step after the other, no
convolution and no approximation. What a simulated chip answers is compared with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aimc_sim.errors import InputError, UsageError, nearest
from ssm.grids import Grid, fitting

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

CHOICES: dict[str, tuple[str, ...]] = {
    "norm": ("pre", "post", "none"),
    "norm_kind": ("layer", "affine"),
    "disc": ("zoh", "bilinear", "dss"),
    "pool": ("mean", "last"),
    "activation": ("gelu",),
    "gate": ("glu", "none"),
}
LAYER_ARRAYS: dict[str, tuple[type, str]] = {
    "pole": (np.complex128, "HM"),
    "drive": (np.complex128, "HM"),
    "readout": (np.complex128, "HM"),
    "mode_weight": (np.float64, "HM"),
    "skip": (np.float64, "H"),
    "mix_weight": (np.float64, "HK"),
    "mix_bias": (np.float64, "K"),
    "norm_scale": (np.float64, "H"),
    "norm_shift": (np.float64, "H"),
}
MODEL_ARRAYS: dict[str, tuple[type, str]] = {
    "encoder_weight": (np.float64, "IH"),
    "encoder_bias": (np.float64, "H"),
    "decoder_weight": (np.float64, "HC"),
    "decoder_bias": (np.float64, "C"),
}
LAYER_STEPS: dict[str, tuple[type, str]] = {
    "state_step": (np.float64, "HM2"),
    "act_step": (np.float64, "2"),
}
MODEL_STEPS: dict[str, tuple[type, str]] = {"act_step": (np.float64, "2")}
_STATE_ELEMENTS = 65_536  # of one chunk: 1 MB of complex states stays in the L2 cache
_SEQUENCE_ELEMENTS = 8_388_608  # of one chunk: bounds the kept outputs of a layer to 64 MB


def check_choice(name: str, value: str) -> str:
    """Return `value` if the fact `name` may have it.

    Raises
    ------
    UsageError : it may not; the nearest allowed value is suggested.
    """
    allowed = CHOICES[name]
    if value not in allowed:
        near = nearest(str(value), allowed)
        raise UsageError(
            f"use {name}={value!r}",
            "it is not a known value" + (f"; did you mean {near!r}?" if near else ""),
            f"choose one of: {', '.join(allowed)}",
        )
    return value


def _store_arrays(
    owner: Any, arrays: Mapping[str, tuple[type, str]], sizes: dict[str, int], what: str
) -> None:
    """Cast the array fields of `owner` and check that their axes agree and values are finite."""
    for name, (dtype, axes) in arrays.items():
        array: NDArray[Any] = np.ascontiguousarray(getattr(owner, name), dtype=dtype)
        pairs = zip(axes, array.shape, strict=False)
        wanted = tuple(sizes.setdefault(axis, size) for axis, size in pairs)
        if array.ndim != len(axes) or array.shape != wanted:
            known = ", ".join(str(sizes.get(axis, axis)) for axis in axes)
            raise InputError(
                f"build {what}", f"its {name} has shape {array.shape}, not ({known})",
                "give arrays whose heads, modes and columns agree",
            )
        if array.size == 0:
            raise InputError(f"build {what}", f"its {name} is empty: {array.shape}",
                             "give at least one head, mode, feature and class")
        if not np.isfinite(array).all():
            raise InputError(
                f"build {what}", f"its {name} has NaN or infinite values",
                "use a model whose training did not diverge",
            )
        object.__setattr__(owner, name, array)


def _store_steps(
    owner: Any, arrays: Mapping[str, tuple[type, str]], sizes: dict[str, int], what: str
) -> None:
    """Check the steps that a model trained with rounding carries, where it has them."""
    given = {name: kind for name, kind in arrays.items() if getattr(owner, name) is not None}
    _store_arrays(owner, given, {**sizes, "2": 2}, what)
    for name in given:
        if not (getattr(owner, name) > 0).all():
            raise InputError(f"build {what}", f"its {name} has values that are not positive",
                             "give positive steps, or None for ranges from calibration")


@dataclass(frozen=True, eq=False)
class Layer:
    """One S4D layer, discretised: H single-input systems of M modes, then mixing and norm.

    x_k = pole x_(k-1) + drive u_k and y_k = Re(sum_m mode_weight readout x_k) + skip u_k per
    head, with the symbols dA, dB, C and D of Gu et al., S4D (doi:10.48550/arXiv.2206.11893).

    Parameters
    ----------
    pole : (H, M) complex, discretised eigenvalue dA.
    drive : (H, M) complex, discretised input weight dB.
    readout : (H, M) complex, output weight C.
    mode_weight : (H, M), 2 where a mode stands for itself and its conjugate, 1 where it
        stands alone (a real pole), 0 where the head has no mode: heads may keep different
        numbers of them. Such a place holds zeros, counts as no state and takes no cell.
    skip : (H,), feed-through D.
    mix_weight, mix_bias : (H, K) and (K,), K = 2 H with a GLU behind, H without.
    norm_scale, norm_shift : (H,), ones and zeros where the model has no norm.
    state_step : (H, M, 2) or None, learned steps of the registers of Re x and Im x, the input
        weight being 1 (dB folded into C).
    act_step : (2,) or None, learned steps of the input of D and of the input of mixing.
    grids : integers and scales of arrays that were rounded, by name; those whose values are not
        the array any more are dropped.

    Raises
    ------
    InputError : shapes that disagree, values that are not finite, another mode weight.
    """

    pole: Complex
    drive: Complex
    readout: Complex
    mode_weight: Real
    skip: Real
    mix_weight: Real
    mix_bias: Real
    norm_scale: Real
    norm_shift: Real
    state_step: Real | None = None
    act_step: Real | None = None
    grids: Mapping[str, Grid] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        _store_arrays(self, LAYER_ARRAYS, sizes, "a layer")
        _store_steps(self, LAYER_STEPS, sizes, "a layer")
        object.__setattr__(self, "grids", fitting(self.grids, self))
        if not np.isin(self.mode_weight, (0.0, 1.0, 2.0)).all():
            raise InputError(
                "build a layer", "its mode_weight has values other than 0, 1 and 2",
                "use 2 for a mode with its conjugate, 1 for a real pole, 0 for none",
            )
        alone, none = self.mode_weight == 1.0, self.mode_weight == 0.0
        if self.pole.imag[alone].any():
            raise InputError(
                "build a layer",
                f"{np.count_nonzero(self.pole.imag[alone])} poles that stand alone "
                "(mode_weight 1) are not real",
                "give a complex pole mode_weight 2, for itself and its conjugate",
            )
        for name in ("pole", "drive", "readout"):
            if getattr(self, name)[none].any():
                raise InputError(
                    "build a layer", f"its {name} is not zero where mode_weight is 0",
                    "set what belongs to no mode to zero",
                )

    def respond(self, u: Real) -> tuple[Real, Complex]:
        """Return the heads' outputs y and the last state, step by step from a zero state.

        Parameters
        ----------
        u : (n, time, H), the heads' inputs.

        Returns
        -------
        y (n, time, H) and x (n, H, M), the state after the last step.
        """
        n, n_steps, n_heads = u.shape
        inputs = np.ascontiguousarray(u.transpose(1, 2, 0))  # (time, H, n): samples innermost
        outputs = np.empty_like(inputs)
        state = np.zeros((*self.pole.shape, n), np.complex128)
        pole, drive = self.pole[:, :, None], self.drive[:, :, None]
        gain = (self.mode_weight * self.readout)[:, None, :]
        for step in range(n_steps):
            state *= pole
            state += drive * inputs[step, :, None, :]
            outputs[step] = (gain @ state)[:, 0].real
        outputs += self.skip[:, None] * inputs
        return outputs.transpose(2, 0, 1), state.transpose(2, 0, 1)


@dataclass(frozen=True, eq=False)
class Model:
    """A trained S4D network with every fact that its answer depends on.

    h = x_t @ encoder_weight + encoder_bias at every step; then layer by layer, with
    mix(y) = y @ mix_weight + mix_bias and GLU (a, b) -> a sigmoid(b),
    h = norm(h + glu(mix(gelu(s4d(h))))) for norm="post" and
    h = h + glu(mix(gelu(s4d(norm(h))))) for norm="pre"; then the mean over time or the last
    step, and the decoder. Dropout is absent: this is inference.

    Parameters
    ----------
    encoder_weight, encoder_bias : (d_input, H) and (H,).
    layers : one Layer after the other, all with H heads.
    decoder_weight, decoder_bias : (H, n_classes) and (n_classes,).
    norm : "pre", "post" or "none".
    disc : the rule that gave pole and drive: "zoh", "bilinear" or "dss". For the record:
        the arrays are discretised already.
    pool : "mean" over time or "last" step.
    norm_kind : "layer" (LayerNorm over the heads) or "affine" (a folded BatchNorm).
    norm_epsilon : added to the variance by LayerNorm.
    activation : "gelu", the exact one with erf.
    gate : "glu" or "none".
    task : name of the data that it was trained on, where known.
    precision : bits per quantity, where quantised.
    act_step : (2,) or None, learned steps of the model's input and of the decoder's.
    grids : integers and scales of encoder and decoder where they were rounded, by name.
    unpruned_states : real states before pruning (`ssm.prune`), None where nothing was pruned.
    name, sha256 : file of origin and its hash, "" where there is none.

    Raises
    ------
    InputError : shapes that disagree, values that are not finite.
    UsageError : a fact with an unknown value.
    """

    encoder_weight: Real
    encoder_bias: Real
    layers: tuple[Layer, ...]
    decoder_weight: Real
    decoder_bias: Real
    norm: str
    disc: str
    pool: str
    norm_kind: str = "layer"
    norm_epsilon: float = 1e-5
    activation: str = "gelu"
    gate: str = "glu"
    task: str | None = None
    precision: Mapping[str, int] | None = None
    act_step: Real | None = None
    unpruned_states: int | None = None
    name: str = ""
    sha256: str = ""
    grids: Mapping[str, Grid] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for fact in CHOICES:
            check_choice(fact, getattr(self, fact))
        if not (np.isfinite(self.norm_epsilon) and self.norm_epsilon >= 0):
            raise InputError("build a model", f"its norm_epsilon is {self.norm_epsilon}",
                             "give a small positive number")
        object.__setattr__(self, "layers", tuple(self.layers))
        _store_arrays(self, MODEL_ARRAYS, {}, "a model")
        _store_steps(self, MODEL_STEPS, {}, "a model")
        object.__setattr__(self, "grids", fitting(self.grids, self))
        if not self.layers:
            raise InputError("build a model", "it has no layers", "give at least one layer")
        wanted = (self.n_heads, self.n_heads * (2 if self.gate == "glu" else 1))
        for index, layer in enumerate(self.layers):
            if layer.mix_weight.shape != wanted:
                raise InputError(
                    f"build a model of {self.n_heads} heads with gate={self.gate!r}",
                    f"its layers[{index}].mix_weight has shape {layer.mix_weight.shape}, "
                    f"not {wanted}",
                    "give every layer the encoder's heads, and 2 H mixing columns for a GLU",
                )

    def __repr__(self) -> str:
        return (
            f"{self.name or 'model'}: {self.n_layers} layers of {self.n_heads} heads, "
            f"{self.n_states} states, d_input {self.d_input}, {self.n_classes} classes; "
            f"norm {self.norm}, disc {self.disc}, pool {self.pool}"
        )

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def n_heads(self) -> int:
        """Heads H of each layer."""
        return int(self.encoder_weight.shape[1])

    @property
    def d_input(self) -> int:
        """Features of one time step."""
        return int(self.encoder_weight.shape[0])

    @property
    def n_classes(self) -> int:
        """Outputs of the decoder."""
        return int(self.decoder_weight.shape[1])

    @property
    def n_states(self) -> int:
        """Real states over all layers and heads: 2 per conjugate pair, 1 per real pole."""
        return int(sum(layer.mode_weight.sum() for layer in self.layers))

    @property
    def n_parameters(self) -> int:
        """Real numbers that the run uses.

        Of a pair's pole, drive and readout two each, of a real pole's one; an absent norm counts
        none, nor do D and the mixing row of a head that was pruned.
        """
        from ssm.places import has_column, has_rows  # which stands on this module

        count = sum(getattr(self, name).size for name in MODEL_ARRAYS)
        for layer in self.layers:
            for name in LAYER_ARRAYS:
                if name == "mode_weight" or (name.startswith("norm_") and self.norm == "none"):
                    continue
                array = getattr(layer, name)
                if name == "skip":
                    count += has_column(layer).sum()
                elif name == "mix_weight":
                    count += has_rows(layer).sum() * array.shape[1]
                else:
                    count += layer.mode_weight.sum() if np.iscomplexobj(array) else array.size
        return int(count)

    def replace(self, **changes: Any) -> Model:
        """Return a copy with some fields changed, checked anew.

        changes : field -> new value.

        Raises
        ------
        UsageError : a field that a Model does not have.
        """
        fields = [one.name for one in dataclasses.fields(self)]
        for change in changes:
            if change not in fields:
                near = nearest(change, fields)
                raise UsageError(
                    f"replace {change} of a model",
                    "it has no such field" + (f"; did you mean {near}?" if near else ""),
                    f"choose from: {', '.join(fields)}",
                )
        return dataclasses.replace(self, **changes)

    @overload
    def logits(self, x: ArrayLike, *, return_states: Literal[False] = False) -> Real: ...

    @overload
    def logits(
        self, x: ArrayLike, *, return_states: Literal[True]
    ) -> tuple[Real, tuple[Complex, ...]]: ...

    def logits(
        self, x: ArrayLike, *, return_states: bool = False
    ) -> Real | tuple[Real, tuple[Complex, ...]]:
        """Return the class scores of the digital float64 recurrence, the oracle.

        Exact erf GELU; LayerNorm with the biased variance. Runs in chunks of samples, so
        that memory does not grow with n beyond the answer.

        Parameters
        ----------
        x : (n, time, d_input), finite.
        return_states : also return the states after the last step.

        Returns
        -------
        (n, n_classes) float64; with `return_states` a pair of it and a tuple with one
        (n, H, M) complex array per layer.

        Raises
        ------
        InputError : another shape, no time step, values that are not finite.

        Examples
        --------
        >>> one = np.ones((1, 1))
        >>> layer = Layer(pole=0.5 * one, drive=one, readout=one, mode_weight=one, skip=one[0],
        ...     mix_weight=one, mix_bias=one[0], norm_scale=one[0], norm_shift=one[0])
        >>> model = Model(one, 0 * one[0], (layer,), one, 0 * one[0], norm="none",
        ...     disc="zoh", pool="last", gate="none")
        >>> model.logits(np.zeros((1, 3, 1)))
        array([[1.]])
        """
        samples = self._checked_input(x)
        answers = [np.empty((0, self.n_classes))]
        states = [tuple(np.empty((0, *layer.pole.shape), complex) for layer in self.layers)]
        for chunk in self._chunks(samples):
            h = chunk @ self.encoder_weight + self.encoder_bias
            last = []
            for layer in self.layers:
                h, state = self.apply(layer, h)
                last.append(state)
            pooled = h.mean(axis=1) if self.pool == "mean" else h[:, -1]
            answers.append(pooled @ self.decoder_weight + self.decoder_bias)
            if return_states:
                states.append(tuple(last))
        logits = np.concatenate(answers)
        if return_states:
            return logits, tuple(np.concatenate(parts) for parts in zip(*states, strict=True))
        return logits

    def _checked_input(self, x: ArrayLike) -> Real:
        try:
            samples = np.asarray(x, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError("run the model on x",
                             f"the argument is not an array of numbers: {error}",
                             "give numbers of shape (n, time, features)") from error
        if samples.ndim != 3 or samples.shape[2] != self.d_input or samples.shape[1] < 1:
            raise InputError(
                "run the model on x",
                f"the array has shape {samples.shape}, the model takes (n, time, {self.d_input})",
                "give samples, at least one time step and the features it was trained on",
            )
        if not np.isfinite(samples).all():
            raise InputError("run the model on x", "the array has NaN or infinite values",
                             "clean the data first")
        return samples

    def _chunks(self, samples: Real) -> Iterator[Real]:
        n_modes = max(layer.pole.size for layer in self.layers)
        n_sequence = samples.shape[1] * self.n_heads
        size = max(1, min(_STATE_ELEMENTS // n_modes, _SEQUENCE_ELEMENTS // n_sequence))
        for start in range(0, len(samples), size):
            yield samples[start : start + size]

    def apply(self, layer: Layer, h: Real) -> tuple[Real, Complex]:
        """Return what a layer makes of h (n, time, H), and its last states (n, H, M)."""
        from scipy.special import expit

        y, state = layer.respond(self.normalise(layer, h) if self.norm == "pre" else h)
        y = gelu(y)
        y = y @ layer.mix_weight + layer.mix_bias
        if self.gate == "glu":
            y = y[..., : self.n_heads] * expit(y[..., self.n_heads :])
        h = h + y
        return (self.normalise(layer, h) if self.norm == "post" else h), state

    def normalise(self, layer: Layer, h: Real) -> Real:
        """Return h (n, time, H) after a layer's norm."""
        if self.norm_kind == "layer":
            h = h - h.mean(axis=-1, keepdims=True)
            variance = (h**2).mean(axis=-1, keepdims=True)
            h = h / np.sqrt(variance + self.norm_epsilon)
        return h * layer.norm_scale + layer.norm_shift


def gelu(y: Real) -> Real:
    """Return y Phi(y) with the normal distribution Phi, exactly (erf), elementwise."""
    # scipy.special costs 0.1 s at import, which `aimc-sim --help` should not pay
    from scipy.special import erf

    return np.asarray(y * 0.5 * (1.0 + erf(y / np.sqrt(2.0))))
