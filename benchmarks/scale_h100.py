"""Runs measured on one H100, as docs/gpu.md says them: what the model of scale knows of GPUs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from benchmarks.scale_model import Rates, Work, fit_rates

_RERAM = Work(layers=2, batch=10_000, steps=784)  # reram-wan2022
_PCM = replace(_RERAM, lasting=True)  # pcm-hermes2023-2dev
_CMO = replace(_PCM, noisy=False)  # cmo-hfox
_WIDE = replace(_RERAM, heads=2048, states=4, layers=1, batch=1000, steps=100, form="digital")
_WIDE_CMO = replace(_CMO, heads=2048, states=4, layers=1, batch=1000, steps=100, form="digital")

# seconds of one `infer` (torch 2.11, triton 3.6, 2026-11-24)
FITTED = {
    "leapfrog": (_RERAM, 0.488),
    "leapfrog, noise lasts": (_CMO, 0.182),
    "digital": (replace(_RERAM, form="digital"), 0.148),
    "digital, noise lasts": (replace(_CMO, form="digital"), 0.112),
    "256 heads, batch 2000": (replace(_RERAM, heads=256, batch=2000), 0.453),
    "16 states, batch 2000": (replace(_RERAM, states=16, batch=2000), 0.069),
    "100 steps, noise lasts": (replace(_CMO, steps=100), 0.035),
    "batch 1000, noise lasts": (replace(_CMO, batch=1000), 0.023),
    "8.4 million weights": (_WIDE, 0.504),
}
PREDICTED = {
    "decay digital": (replace(_RERAM, form="decay digital"), 0.297),
    "decay digital, noise lasts": (replace(_CMO, form="decay digital"), 0.143),
    "direct, noise lasts": (replace(_CMO, form="direct"), 0.152),
    "32 heads, batch 2000": (replace(_RERAM, heads=32, batch=2000), 0.056),
    "100 steps": (replace(_RERAM, steps=100), 0.072),
    "10,000 steps, batch 1000": (replace(_RERAM, batch=1000, steps=10_000), 0.639),
    "batch 1000": (replace(_RERAM, batch=1000), 0.056),
    "batch 40,000": (replace(_RERAM, batch=40_000), 1.947),
    "batch 40,000, noise lasts": (replace(_CMO, batch=40_000), 0.713),
    "10,000 steps, noise lasts": (replace(_CMO, batch=1000, steps=10_000), 0.229),
    "both kinds of noise": (_PCM, 0.512),
    "both, 10,000 steps": (replace(_PCM, batch=1000, steps=10_000), 0.647),
    "both, 16 heads, batch 4000": (replace(_PCM, heads=16, batch=4000), 0.057),
    "both, 128 heads, batch 4000": (replace(_PCM, heads=128, batch=4000), 0.413),
    "both, 16 states, batch 4000": (replace(_PCM, states=16, batch=4000), 0.130),
    "both, 128 states, batch 4000": (replace(_PCM, states=128, batch=4000), 0.367),
    "both, 10 chips, 1000 x 196": (replace(_PCM, chips=10, batch=1000, steps=196), 0.137),
    "both, 100 chips, 1000 x 196": (replace(_PCM, chips=100, batch=1000, steps=196), 1.343),
    "0.5 million weights, noise lasts": (replace(_WIDE_CMO, heads=512), 0.057),
    "8.4 million weights, noise lasts": (_WIDE_CMO, 0.804),
}


@cache
def h100_rates() -> Rates:
    """Return the rates of one H100, fitted to `FITTED`; its memory is part of them."""
    works, seconds = zip(*FITTED.values(), strict=True)
    return fit_rates(works, np.array(seconds), np.inf, 0.0)
