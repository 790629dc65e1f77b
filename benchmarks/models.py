"""Random state-space models with the poles of trained ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ssm import Model

SHORTEST, LONGEST = 14.0, 2000.0  # time constants in steps, |dA| 0.93 .. 0.9995


def random_model(n_heads: int = 64, n_states: int = 64, *, seed: int = 0) -> Model:
    """Return one S4D layer of n_heads heads with n_states real states (n_states / 2 modes) each.

    GLU, post-norm, one input, ten classes, mean pooling. Time constants are log-uniform in
    SHORTEST .. LONGEST, angles uniform on the circle.
    """
    from ssm import Layer, Model

    rng = np.random.default_rng(seed)
    shape = (n_heads, n_states // 2)

    def gaussian() -> np.ndarray:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    rho = np.exp(-1 / np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST), shape)))
    pole = rho * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))
    layer = Layer(
        pole=pole,
        drive=gaussian() * np.abs(1 - pole),
        readout=gaussian() / np.sqrt(n_states),
        mode_weight=np.full(shape, 2.0),
        skip=rng.normal(size=n_heads),
        mix_weight=rng.normal(size=(n_heads, 2 * n_heads)) / np.sqrt(n_heads),
        mix_bias=np.zeros(2 * n_heads),
        norm_scale=np.ones(n_heads),
        norm_shift=np.zeros(n_heads),
    )
    return Model(
        rng.normal(size=(1, n_heads)), np.zeros(n_heads), (layer,),
        rng.normal(size=(n_heads, 10)) / np.sqrt(n_heads), np.zeros(10),
        norm="post", disc="zoh", pool="mean", name=f"random {n_heads} x {n_states}",
    )
