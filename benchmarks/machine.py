"""What the figures were measured on, and how its threads are pinned."""

from __future__ import annotations

import os
import platform
import time
from importlib import import_module
from pathlib import Path
from typing import Any

# every library that would start threads of its own below a product
_POOLS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# settings that make OpenBLAS choose other kernels or block sizes than those of this processor
_OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def pin_threads() -> None:
    """Give BLAS and OpenMP one thread. Works only before numpy is imported.

    numba keeps its cores: a benchmark asks for one or two of them (`timing.threads`).
    """
    for name in _POOLS:
        os.environ[name] = "1"


def warn_of_settings() -> list[str]:
    """Return a sentence for every setting of the environment that spoils the limits."""
    found = [name for name in _OVERRIDES if name in os.environ]
    texts = [
        f"{name}={os.environ[name]} is set: BLAS may run slower than it can, which flatters the "
        f"ratios. Unset it (env -u {name} python -m benchmarks)."
        for name in found
    ]
    load, cores = _load(), os.cpu_count() or 1
    if load is not None and load > 0.5 * cores:
        texts.append(
            f"The load average is {load:.1f} on {cores} core(s): other programs disturb the "
            "figures. Run again on an idle machine."
        )
    return texts


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def describe() -> dict[str, Any]:
    """Return the machine as plain values: processor, BLAS, versions, bandwidth, moment."""
    import numba
    import numpy as np

    import aimc_sim

    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": _cpu_model(),
        "vectors": _vector_sets(),
        "cores": os.cpu_count(),
        "load_average": _load(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "aimc_sim": aimc_sim.__version__,
        "blas": _blas(),
        "copy_gb_per_s": _copy_rate(),
    }


def _cpu_info(key: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")


def _cpu_model() -> str:
    model = _cpu_info("model name") or platform.processor() or "unknown processor"
    family, number = _cpu_info("cpu family"), _cpu_info("model")
    return f"{model} (family {family}, model {number})" if family and number else model


def _vector_sets() -> list[str]:
    known = _cpu_info("flags").split() or _cpu_info("Features").split()
    return [name for name in ("avx2", "fma", "avx512f", "asimd", "sve") if name in known]


def _blas() -> str:
    """Return the BLAS that numpy calls, with the kernel and threads it runs where known."""
    import numpy as np

    build = np.show_config(mode="dicts")
    blas = (build or {}).get("Build Dependencies", {}).get("blas", {})
    text = f"{blas.get('name', 'unknown BLAS')} {blas.get('version', '')}".strip()
    try:
        threadpool_info = import_module("threadpoolctl").threadpool_info
    except ImportError:
        return f"{text} (kernel unknown: install threadpoolctl to see it)"
    own = str(Path(np.__file__).parent.parent)
    pools = [pool for pool in threadpool_info() if pool.get("user_api") == "blas"]
    pools = [pool for pool in pools if pool.get("filepath", "").startswith(own)] or pools
    if not pools:
        return text
    kernel = pools[0].get("architecture", "unknown")
    return f"{text}, kernel {kernel}, {pools[0].get('num_threads')} thread(s)"


def _copy_rate() -> float:
    """Return the rate of a large copy on one thread, GB/s read plus written (best of five)."""
    import numpy as np

    source = np.ones(1 << 23, np.float32)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - started)
    return round(2 * source.nbytes / best / 1e9, 1)
