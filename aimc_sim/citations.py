"""What to cite: the sources of the device and of the methods that a thing used."""

from __future__ import annotations

from typing import Any

from aimc_sim.cards import DeviceSpec
from aimc_sim.errors import UsageError
from aimc_sim.specs import ChipSpec

_S4D = (
    "A. Gu, A. Gupta, K. Goel and C. Re, On the parameterization and initialization of diagonal "
    "state space models, NeurIPS (2022), doi:10.48550/arXiv.2206.11893"
)
_QS4D = (
    "S. Siegel, M.-J. Yang, Y. Bouhadjar, M. Fabre, E. Neftci and J. P. Strachan, QS4D: "
    "Quantization-aware training for efficient hardware deployment of structured state-space "
    "sequential models (2025), doi:10.48550/arXiv.2507.06079"
)
_COMPENSATIONS = {
    # one factor for all outputs from a calibration read
    "global": (
        "V. Joshi et al., Nature Communications 11, 2473 (2020), doi:10.1038/s41467-020-16108-9"
    ),
    # a line for every column, from calibration patterns
    "affine": "M. Hu et al., Advanced Materials 30, 1705914 (2018), doi:10.1002/adma.201705914",
}
_INSIDE = ("deployment", "mapped", "chip")  # where a thing keeps what it was made of


def cite(thing: Any) -> list[str]:
    """Return the references of what a thing used, each once: authors, journal, year, DOI.

    The source of the device first, then of the compensation of drift, then of the network's
    method where a network was deployed. Only what has a source of its own is listed.

    Parameters
    ----------
    thing : a DeviceSpec or ChipSpec; a mapped or programmed matrix; a Chip; a deployment, a
        programmed model, a run or an evaluation of the package ssm.

    Raises UsageError for anything else.

    Examples
    --------
    >>> cite(ChipSpec.preset("rram-milo2021"))[0][:12]
    'V. Milo et a'
    >>> cite(ChipSpec.preset("ideal"))
    []
    """
    thing, network = _opened(thing)
    if isinstance(thing, DeviceSpec):
        return device_references(thing)
    found = device_references(thing.device)
    if thing.compensation in _COMPENSATIONS:
        found.append(_COMPENSATIONS[thing.compensation])
    if network:
        found += [_S4D, _QS4D]
    return list(dict.fromkeys(found))


def device_references(device: DeviceSpec) -> list[str]:
    """Return the references of a device card, one for each of its DOIs."""
    dois = [f"doi:{doi}" for doi in device.doi]
    if len(device.cite) != len(dois):  # whose is whose is not said
        return [*device.cite, *dois]
    return [f"{text}, {doi}" for text, doi in zip(device.cite, dois, strict=True)]


def _opened(thing: Any) -> tuple[DeviceSpec | ChipSpec, bool]:
    """Return the spec in a thing, and whether a network was deployed.

    By attributes, not by type: the classes of networks live in a package that stands on this one.
    """
    inner, network = thing, False
    while not isinstance(inner, (DeviceSpec, ChipSpec)):
        network = network or hasattr(inner, "network")
        held = [getattr(inner, name, None) for name in (*_INSIDE, "spec")]
        inner = next((part for part in held if part is not None), None)
        if inner is None:
            raise UsageError(
                f"cite the sources of a thing of type {type(thing).__name__}",
                "it has no device, chip or deployment",
                "give a spec, a matrix, a deployment, a programmed model, a run or an evaluation",
            )
    return inner, network
