"""What the recurrent kernels see of a deployment: named tuples of arrays, nothing else.

H heads, K modes of all layers one after the other, L layers. Products are numbered: 0 the
encoder, then PER_LAYER for each layer (four of A, C, mixing), last the decoder.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aimc_sim.kernels.converters import Periphery
from aimc_sim.kernels.moving import Moving

PER_LAYER = 6
A_PRODUCT, C_PRODUCT, MIX_PRODUCT = 0, 4, 5

FORM_CODES = {"digital": 0, "direct": 1, "delta": 2, "leapfrog": 3}
NORM_CODES = {"none": 0, "pre": 1, "post": 2}


class Network(NamedTuple):
    """The model as constants (float32 and int64)."""

    form: int  # FORM_CODES
    digital_decay: bool  # leapfrog: d applied in logic
    norm: int  # NORM_CODES
    affine_norm: bool  # a folded batch norm instead of a layer norm
    norm_epsilon: np.float32
    glu: bool
    pool_last: bool
    n_heads: int
    mode_first: np.ndarray  # (L + 1,) first mode of a layer
    sign: np.ndarray  # (K,) leapfrog: sigma
    pole: np.ndarray  # (2, K) dA, re and im, for the digital form
    decay: np.ndarray  # (K,) d = 1 - rho, for digital decay
    norm_scale: np.ndarray  # (L, H)
    norm_shift: np.ndarray  # (L, H)
    mix_bias: np.ndarray  # (L, n_mix)
    encoder_bias: np.ndarray  # (H,)
    decoder_bias: np.ndarray  # (n_classes,)
    n_in: int
    group_a: int  # modes driven together
    group_c: int  # heads driven together
    part_rows: np.ndarray  # (n_products,) rows of a block that share a tile
    weight_first: np.ndarray  # (n_products + 1,) first weight of a product
    analog: np.ndarray  # (n_products,) bool: on tiles, through converters


class Converters(NamedTuple):
    """Steps of all converters (float32); a limit of 0 is an ideal converter."""

    dac_limit: np.float32
    state_dac_limit: np.float32  # of the states, which may have a width of their own
    adc_limit: np.float32
    adc_noise: np.float32  # in steps
    state_limit: np.float32  # 0: the state register is not quantised
    input_step: np.ndarray  # (n_in,) encoder
    state_step: np.ndarray  # (2 K,) DAC of every state
    state_inverse: np.ndarray  # (2 K,) 1 / state_step: a product costs a sixth of a division
    register_step: np.ndarray  # (2 K,) digital state register
    register_inverse: np.ndarray  # (2 K,) 1 / register_step
    skip_step: np.ndarray  # (L, H) input u of C's skip row
    mix_step: np.ndarray  # (L, H)
    decode_step: np.ndarray  # (H,)
    adc_first: np.ndarray  # (n_products + 1,) first output of a product
    adc_step: np.ndarray  # (n_outputs,) parts of a product one after the other
    adc_inverse: np.ndarray  # (n_outputs,)
    planes: np.ndarray  # (n_products,) drives of each, several where bits of inputs go one by one


class Weights(NamedTuple):
    """What the cells stand for during one sequence."""

    w: np.ndarray  # (n_weights,)
    v: np.ndarray  # (n_weights,) white variance of one read
    spread: np.ndarray  # (n_weights,) its square root
    noisy: np.ndarray  # (n_products,) bool
    keys: np.ndarray  # (n_products, 2) uint64
    offset: np.ndarray  # (n_outputs,) to subtract from every converted output, or (0,): none
    moving: Moving  # noise that changes w with the steps
    periphery: Periphery  # errors of converters


class Record(NamedTuple):
    """Largest magnitudes seen at every converter; empty arrays where nothing is recorded."""

    on: bool
    inputs: np.ndarray  # as Converters.input_step
    states: np.ndarray  # (2 K,)
    skips: np.ndarray  # (L, H)
    mixes: np.ndarray  # (L, H)
    decodes: np.ndarray  # (H,)
    outputs: np.ndarray  # (n_outputs,)
    row_inverse: np.ndarray  # (n_rows,) bins per unit of histograms of magnitudes
    row_counts: np.ndarray  # (n_rows, n_bins) int64, inputs, states, skips, mixes, decodes; (0, 0)
    output_inverse: np.ndarray  # (n_outputs,)
    output_counts: np.ndarray  # (n_outputs, n_bins) int64, or (0, 0): none


class Workspace(NamedTuple):
    """Buffers of one running sequence (float32): nothing is allocated in the time loop."""

    h: np.ndarray  # (H,)
    u: np.ndarray  # (H,)
    out: np.ndarray  # (H,) one value a head
    x0: np.ndarray  # (K_max,) converted states
    x1: np.ndarray  # (K_max,)
    inputs: np.ndarray  # (n_in,)
    y: np.ndarray  # (width,) a product
    s: np.ndarray  # (width,) its variance
    total: np.ndarray  # (width,) sum over row parts
    z: np.ndarray  # normals of all conversions of a product, 64 to spare
    p0: np.ndarray  # (K_max or rows,) codes of inputs whose bits go one by one
    p1: np.ndarray
    p2: np.ndarray  # (H,)
    drive_z: np.ndarray  # normals of a drive, 64 to spare
    clipped: np.ndarray  # (n_products,) int64 conversions that clipped


class Tiles(NamedTuple):
    """What a product on tiles needs of the five tuples above, for one sequence.

    An array is seven machine values: a call with those tuples passes some 400 of them, one with
    this a third.
    """

    weight_first: np.ndarray  # Network
    part_rows: np.ndarray
    analog: np.ndarray
    w: np.ndarray  # Weights
    v: np.ndarray
    spread: np.ndarray
    noisy: np.ndarray
    keys: np.ndarray
    offset: np.ndarray
    dac_limit: np.float32  # Converters
    state_dac_limit: np.float32
    state_step: np.ndarray
    state_inverse: np.ndarray
    adc_limit: np.float32
    adc_noise: np.float32
    adc_first: np.ndarray
    adc_step: np.ndarray
    adc_inverse: np.ndarray
    planes: np.ndarray
    periphery: Periphery
    state_row: int  # number of the first state among the rows
    recording: bool  # Record.on
    states: np.ndarray  # Record
    outputs: np.ndarray
    row_inverse: np.ndarray
    row_counts: np.ndarray
    output_inverse: np.ndarray
    output_counts: np.ndarray
    y: np.ndarray  # Workspace
    s: np.ndarray
    total: np.ndarray
    z: np.ndarray
    p0: np.ndarray
    p1: np.ndarray
    p2: np.ndarray
    drive_z: np.ndarray
    clipped: np.ndarray
