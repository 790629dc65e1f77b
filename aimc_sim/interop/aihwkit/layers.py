"""Weights of analog layers of aihwkit as matrices mapped onto tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.errors import InputError
from aimc_sim.interop.aihwkit.config import full_scale, import_config
from aimc_sim.interop.aihwkit.noise import Defects
from aimc_sim.interop.remarks import Remark, listed
from aimc_sim.matrix import MappedMatrix, map_matrix
from aimc_sim.randomness import Purpose

if TYPE_CHECKING:
    from aimc_sim.specs import ChipSpec

_ASKED = "import layers of an aihwkit model"


@dataclass(frozen=True, eq=False)
class ImportedLayer:
    """One analog layer: y = x @ matrix + bias.

    matrix : w (n_in, n_out) on tiles, not yet programmed. bias : (n_out,) in logic, or None.
    remarks : what its configuration says and this chip does not.
    """

    matrix: MappedMatrix
    bias: np.ndarray | None
    remarks: tuple[Remark, ...]

    def __str__(self) -> str:
        return listed(str(self.matrix), self.remarks)


def import_layers(
    module: Any, spec: ChipSpec | None = None, *, defects: Defects = "mended"
) -> dict[str, ImportedLayer]:
    """Return every analog layer of a torch module as a matrix on tiles, by its name there.

    module : an AnalogLinear, a convolution (its unfolded matrix: rows are the channels and places
        of its kernel), or a model of such layers; what it learned of scales is part of the weights.
    spec : the chip; None: what `import_config` makes of each layer's own configuration.
    defects : as of `import_noise_model`.

    Inputs whose range the layer has learned, or that have a fixed one, have it here too.
    Raises InputError where there is no analog layer or a weight is not finite.
    """
    if not hasattr(module, "named_modules"):
        raise InputError(
            _ASKED, f"a {type(module).__name__} is no torch module", "give the model itself"
        )
    found = {
        name: part for name, part in module.named_modules()
        if hasattr(part, "analog_module") and hasattr(part, "get_weights")
    }
    if not found:
        raise InputError(
            _ASKED, f"{type(module).__name__} has no analog layer",
            "convert it with aihwkit's convert_to_analog, or give its weights to map_matrix",
        )
    return {name: _import_layer(name, part, spec, defects) for name, part in found.items()}


def _import_layer(name: str, layer: Any, spec: ChipSpec | None, defects: Defects) -> ImportedLayer:
    weight, bias = layer.get_weights()
    w = _array(weight).reshape(len(weight), -1).T
    tiles = list(layer.analog_tiles())
    config = tiles[0].rpu_config
    if not np.isfinite(w).all():
        raise InputError(_ASKED, f"weights of '{name}' are not finite", "train the model again")
    remarks: tuple[Remark, ...] = ()
    if spec is None:
        largest = max(float(np.abs(_array(tile.tile.get_weights())).max()) for tile in tiles)
        made = import_config(config, largest_weight=largest or 1.0, defects=defects)
        spec, remarks = made.chip, made.remarks
        if len(tiles) > 1:
            remarks += (Remark(
                "mapping.max_input_size", str(config.mapping.max_input_size), "changed",
                f"the peer cuts '{name}' into {len(tiles)} even parts that have scales of their "
                "own; here tiles are filled one after the other, and a matrix has one scale",
            ),)
    given = None if bias is None else _array(bias).reshape(-1)
    matrix = map_matrix(w, spec, calibrate=_calibration(tiles, config, len(w)))
    return ImportedLayer(matrix, given, remarks)


def _array(tensor: Any) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy(), float)


def _calibration(tiles: list[Any], config: Any, n_in: int) -> np.ndarray | None:
    """Return inputs (n, n_in) that reach the layer's range, None where each vector has its own."""
    learned = [
        float(_array(tile.input_range).max()) for tile in tiles
        if getattr(tile, "input_range", None) is not None
    ]
    end = max(learned) if learned else full_scale(config)
    if end is None:
        return None
    generator = np.random.Generator(np.random.Philox(int(Purpose.PROBE)))
    inputs = (2 * generator.random((256, n_in)) - 1) * end
    inputs[0] = end
    return inputs
