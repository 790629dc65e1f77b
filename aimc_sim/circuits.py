"""Energy and area of converters, logic, memory and lines, from published figures.

Every number has its source beside it; `aimc_sim.costs` says which of them a chip uses.
"""

from __future__ import annotations

import math

from aimc_sim.errors import InputError, UsageError

LEAST_ENOB = 4.0  # of the regression over ADCs
# what a chip of coarser ones says instead
COARSE_ADC = (
    "set costs.adc_j and costs.adc_area_m2 of such an ADC ([costs] of a chip file; a published "
    "4-bit one of FORMS at 32 nm has '0.226pJ' and '284um2'), or costs.adc_enob to at least 4"
)
_REFERENCE_NM = 45.0
# energy of a switching gate relative to 45 nm at 0.8 V (Stillmaker and Baas, Integration 58,
# 74 (2017), doi:10.1016/j.vlsi.2017.02.002)
NODE_FACTORS: dict[float, float] = {
    130: 3.068, 90: 1.897, 65: 1.241, 45: 1.0, 32: 0.6593, 28: 0.5132, 22: 0.2941, 16: 0.1735,
    14: 0.1388, 10: 0.1178, 7: 0.0943,
}
# width of the narrowest wires [nm], of DNN+NeuroSim (Peng et al. 2021,
# doi:10.1109/TCAD.2020.3043731)
_LINE_WIDTHS_NM: dict[float, float] = {
    130: 175.0, 65: 105.0, 45: 80.0, 32: 56.0, 22: 40.0, 14: 32.0, 7: 20.0,
}
# Horowitz (ISSCC 2014, doi:10.1109/ISSCC.2014.6757323) is at 45 nm and 0.9 V; C V^2 brings it
# to the 0.8 V of the node factors
_TO_REFERENCE = (0.8 / 0.9) ** 2
_ADD_J_PER_BIT = 0.00344e-12
_MULTIPLY_J_PER_BIT2 = 0.00308e-12
_FLOAT_ADD_J = 0.9e-12
_FLOAT_MULTIPLY_J = 3.7e-12
_SRAM_J: tuple[tuple[float, float], ...] = (  # bytes, J of an access to 64 bits
    (8 * 1024, 10e-12), (32 * 1024, 20e-12), (1024 * 1024, 100e-12),
)
# 6T cell at 45 nm (Mistry et al., IEDM 2007, doi:10.1109/IEDM.2007.4418914)
_SRAM_CELL_M2 = 0.346e-12
_ISAAC_NM, _ISAAC_DRIVE_J, _ISAAC_DRIVE_M2 = 32.0, 0.3255e-12, 0.166e-12
_TIMELY_NM, _TIMELY_DRIVE_J, _TIMELY_DRIVE_M2 = 65.0, 0.0375e-12, 240e-12


def adc_energy_j(enob: float, sample_hz: float, node_nm: float) -> float:
    """Return the energy of a conversion [J], a regression over published ADCs.

    With b = `enob`, f = `sample_hz` of one ADC and L = `node_nm`, natural logarithms:
    SNDR = 6.0206 b + 10 log10 1.5; FOM = min(213.78 - 2.8719 ln f, 128.31 + 3.2205 ceil(b));
    E0 = 1/(2 10^((FOM - SNDR)/10)); E = E0 exp(26.0496 + 1.88004 ln L - 2.82913 ln b - 1.47020)
    in pJ (Andrulis et al. 2024, doi:10.48550/arXiv.2404.06553). Single published designs lie up
    to 45 times lower.

    Raises InputError below 4 effective bits, UsageError for a rate or node that is not positive.

    Examples
    --------
    >>> round(1e12 * adc_energy_j(8, 100e6, 65), 3)
    6.494
    """
    check_adc(enob, sample_hz, node_nm)
    sndr = 6.0206 * enob + 10 * math.log10(1.5)
    merit = min(
        213.7806687348118 - 2.8719030399529957 * math.log(sample_hz),
        128.3068287398817 + 3.2205114876 * math.ceil(enob),
    )
    best = 1 / (2 * 10 ** ((merit - sndr) / 10))
    exponent = (
        26.0496215686518 + 1.8800369206815004 * math.log(node_nm)
        - 2.8291256050594527 * math.log(enob) - 1.4702022133784405
    )
    return 1e-12 * best * math.exp(exponent)


def adc_area_m2(enob: float, sample_hz: float, node_nm: float) -> float:
    """Return the area of an ADC [m^2], of the same regression as `adc_energy_j`.

    A = exp(1.34619 + 0.99328 ln L + 0.18072 ln f + 0.29912 ln E) um^2, E in pJ.

    Examples
    --------
    >>> round(1e12 * adc_area_m2(8, 100e6, 65))
    11862
    """
    energy_pj = 1e12 * adc_energy_j(enob, sample_hz, node_nm)
    return 1e-12 * math.exp(
        1.3461916439910742 + 0.9932794744745022 * math.log(node_nm)
        + 0.18071538424508238 * math.log(sample_hz) + 0.29912426192653485 * math.log(energy_pj)
    )


def check_adc(enob: float, sample_hz: float, node_nm: float) -> None:
    """Refuse an ADC that the regression says nothing of; errors as `adc_energy_j`."""
    asked = f"estimate an ADC of {enob:g} effective bits"
    if not enob >= LEAST_ENOB:
        raise InputError(
            asked, f"the regression over published ADCs holds from {LEAST_ENOB:g} bits on",
            COARSE_ADC,
        )
    if not (0 < sample_hz < math.inf and 0 < node_nm < math.inf):
        raise UsageError(
            asked, f"{sample_hz:g} samples a second at {node_nm:g} nm cannot be",
            "give a positive rate and node",
        )


def node_factor(node_nm: float, *, extrapolate: bool = False) -> float:
    """Return the energy of logic relative to 45 nm at 0.8 V, of a tabled node.

    extrapolate : above 130 nm go on from there with C V^2, capacitance and voltage both
        proportional to the node (1.3 V at 130 nm, 1.8 V at 180 nm), that is with its third
        power (constant field: Dennard et al. 1974, doi:10.1109/JSSC.1974.1050511).

    Raises InputError for a node that is not in the table.

    Examples
    --------
    >>> node_factor(14)
    0.1388
    >>> round(node_factor(180, extrapolate=True), 2)
    8.14
    """
    known = NODE_FACTORS.get(node_nm)
    if known is not None:
        return known
    largest = max(NODE_FACTORS)
    if extrapolate and node_nm > largest:
        return NODE_FACTORS[largest] * (node_nm / largest) ** 3
    names = ", ".join(f"{nm:g}" for nm in NODE_FACTORS)
    beyond = " or set extrapolate_node for C V^2 beyond 130 nm" if node_nm > largest else ""
    raise InputError(
        f"scale energies to {node_nm:g} nm", f"the table of nodes has {names} nm",
        f"choose one of them{beyond}",
    )


def add_j_per_bit(factor: float) -> float:
    """Return the energy of an adder per bit of its width [J]; factor : see `node_factor`."""
    return _ADD_J_PER_BIT * _TO_REFERENCE * factor


def multiply_j_per_bit2(factor: float) -> float:
    """Return the energy of a multiplier per product of its two widths in bits [J]."""
    return _MULTIPLY_J_PER_BIT2 * _TO_REFERENCE * factor


def float_add_j(factor: float) -> float:
    """Return the energy of a 32-bit floating-point addition [J]."""
    return _FLOAT_ADD_J * _TO_REFERENCE * factor


def float_multiply_j(factor: float) -> float:
    """Return the energy of a 32-bit floating-point multiplication [J]."""
    return _FLOAT_MULTIPLY_J * _TO_REFERENCE * factor


def sram_j_per_bit(capacity_bytes: float, factor: float) -> float:
    """Return the energy of an access to a static memory per bit [J].

    10, 20 and 100 pJ for 64 bits at 8 KB, 32 KB and 1 MB (Horowitz 2014), between and above
    them a power law; smaller memories as 8 KB.

    Examples
    --------
    >>> round(64e12 * sram_j_per_bit(32 * 1024, 1.0) / 0.79012, 2)
    20.0
    """
    points = [(math.log(size), math.log(joule)) for size, joule in _SRAM_J]
    at = max(math.log(max(capacity_bytes, 1.0)), points[0][0])
    (x0, y0), (x1, y1) = points[:2] if at <= points[1][0] else points[1:]
    access_j = math.exp(y0 + (y1 - y0) * (at - x0) / (x1 - x0))
    return access_j / 64 * _TO_REFERENCE * factor


def sram_area_m2_per_bit(node_nm: float) -> float:
    """Return the area of a static memory cell [m^2]: 0.346 um^2 at 45 nm, times (node/45 nm)^2."""
    return _SRAM_CELL_M2 * (node_nm / _REFERENCE_NM) ** 2


def drive_j(mode: str, bits: int, factor: float) -> float:
    """Return the energy of a DAC for one input [J], without the line and the cells.

    "bit_serial": a 1-bit driver for each of `bits` (Shafiee et al., ISAAC, ISCA 2016,
    doi:10.1109/ISCA.2016.12: 0.3255 pJ, 32 nm); "amplitude": as many, since no published
    figure of a b-bit one is at hand; "pulse_width": one time-domain drive (Li et al., TIMELY,
    ISCA 2020, doi:10.48550/arXiv.2005.01206: 0.0375 pJ at 65 nm, 8 bit, taken for any width).
    """
    if mode == "pulse_width":
        return _TIMELY_DRIVE_J * factor / NODE_FACTORS[_TIMELY_NM]
    return bits * _ISAAC_DRIVE_J * factor / NODE_FACTORS[_ISAAC_NM]


def drive_area_m2(mode: str, bits: int, node_nm: float) -> float:
    """Return the area of a row's DAC [m^2]; of the same sources, times the node's square."""
    if mode == "pulse_width":
        return _TIMELY_DRIVE_M2 * (node_nm / _TIMELY_NM) ** 2
    n = 1 if mode == "bit_serial" else bits
    return n * _ISAAC_DRIVE_M2 * (node_nm / _ISAAC_NM) ** 2


def line_pitch_m(node_nm: float) -> float:
    """Return the pitch of cells along a line [m]: twice the width of the node's wires.

    Between the nodes with a known width it is interpolated in logarithms, beyond them
    proportional to the node. Without the access transistor, which may be larger.

    Examples
    --------
    >>> line_pitch_m(45)
    1.6e-07
    """
    table = sorted(_LINE_WIDTHS_NM.items())
    if node_nm <= table[0][0]:
        width = table[0][1] * node_nm / table[0][0]
    elif node_nm >= table[-1][0]:
        width = table[-1][1] * node_nm / table[-1][0]
    else:
        k = next(k for k, (nm, _) in enumerate(table) if nm >= node_nm)
        (x0, y0), (x1, y1) = table[k - 1], table[k]
        share = math.log(node_nm / x0) / math.log(x1 / x0)
        width = y0 * (y1 / y0) ** share
    return 2e-9 * width
