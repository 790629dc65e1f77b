"""What kernels are compiled for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from aimc_sim.kernels._jit import wide_vectors


def test_only_processors_that_know_vbmi2_are_asked_for_vectors_of_512_bits():
    ice_lake = "+avx2,+avx512f,+avx512vbmi2,-sha"
    assert wide_vectors(ice_lake) == ice_lake + ",-prefer-256-bit"
    assert wide_vectors("+avx2,+avx512f,-avx512vbmi2") is None  # Skylake: a lower clock
    assert wide_vectors("+avx2,+fma") is None
    assert wide_vectors("") is None  # not known


@pytest.mark.parametrize("own", [{"NUMBA_CPU_FEATURES": "+avx2"}, {"NUMBA_CPU_NAME": "generic"}])
def test_what_the_user_compiles_for_is_kept(own):
    said = "import numba; before = numba.config.CPU_FEATURES; import aimc_sim.kernels._jit; "
    said += "print(before == numba.config.CPU_FEATURES)"
    found = subprocess.run(
        [sys.executable, "-c", said], env={**os.environ, **own}, text=True, capture_output=True
    )
    assert found.stdout.strip() == "True", found.stderr
