"""aihwkit both ways: its noise models, configurations and layers, and our chips as its own.

Reading needs no aihwkit, only its objects; making its objects does.

>>> from aimc_sim.interop import aihwkit
>>> [name for name in aihwkit.__all__ if name.startswith("export")]
['export_config', 'export_noise_model']
"""

from __future__ import annotations

from aimc_sim.interop.aihwkit.check import Comparison, cross_check
from aimc_sim.interop.aihwkit.config import import_config
from aimc_sim.interop.aihwkit.export import export_config
from aimc_sim.interop.aihwkit.layers import ImportedLayer, import_layers
from aimc_sim.interop.aihwkit.model_export import export_noise_model
from aimc_sim.interop.aihwkit.noise import import_noise_model

__all__ = [
    "Comparison",
    "ImportedLayer",
    "cross_check",
    "export_config",
    "export_noise_model",
    "import_config",
    "import_layers",
    "import_noise_model",
]
