"""The one decorator of every compiled kernel.

numba's on-disk cache notices an edit of the decorated file alone, not of the files whose
functions it inlined. Here the cache folder is named by a hash of all kernel sources, so an
edit anywhere in them compiles anew and nothing stale is ever run.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.codegen import get_host_cpu_features

Function = TypeVar("Function", bound=Callable[..., Any])

# FMA contraction and no signed zeros: 1.3 x on the mvm loops. Infinities and NaN keep their
# meaning (a diverged state must stay visible) and sums are never reordered across calls.
FASTMATH = {"contract", "nsz", "arcp"}
# Sums over a dot product may be reordered into vector lanes: 4 x on them.
FASTMATH_SUM = FASTMATH | {"reassoc"}


def wide_vectors(features: str) -> str | None:
    """Return the features to compile for on a processor that gains from vectors of 512 bits.

    features : those of the processor as LLVM writes them, "+avx2,+avx512f,-sha, ...".

    LLVM keeps to 256 bits on Intel's processors with AVX-512, since the first of them lowered
    their clock for wider ones. Those from Ice Lake on, which know VBMI2, do not: on an Emerald
    Rapids normals take 1.36 instead of 2.32 ns and a recurrent step of S4D 31 instead of 42 us.
    None where nothing is to be changed.
    """
    return f"{features},-prefer-256-bit" if "+avx512vbmi2" in features.split(",") else None


if numba.config.CPU_FEATURES is None and numba.config.CPU_NAME is None:
    # takes effect where numba has compiled nothing yet in this process; part of its cache's key
    numba.config.CPU_FEATURES = wide_vectors(get_host_cpu_features())


def _cache_root() -> Path:
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base)
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # a container without a home
        return Path(tempfile.gettempdir())


@cache
def _source_hash(folder: Path) -> str:
    """Return a hash of the kernels here and of those in the folder of the decorated one."""
    # numba files its code under the path of the source: another install is another cache
    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info[:2]} {folder}".encode())
    for path in sorted({*Path(__file__).parent.glob("*.py"), *folder.glob("*.py")}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder(sources: Path) -> Path:
    """Return where the machine code of the kernels in folder `sources` is kept."""
    return _cache_root() / f"aimc-sim-kernels-{_source_hash(sources)}"


@cache
def _can_keep(folder: Path) -> bool:
    """Return whether machine code can be written to `folder` (a home may be read-only)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def kernel(
    *,
    parallel: bool = False,
    inline: bool = False,
    paste: bool = False,
    allocates: bool = False,
    fastmath: Any = None,
) -> Callable[[Function], Function]:
    """Return the decorator that compiles a kernel, its machine code kept on disk.

    parallel : loops over `numba.prange` are shared by the threads.
    inline : inlined by LLVM into every caller (small helpers of the hot loops).
    paste : pasted into every caller before anything is compiled, for what has few callers and
        little code of its own. A compiled callee is linked into its caller and optimised there
        once more, so every level of calls costs its whole subtree again: with the thin levels
        pasted, and no level of a parallel loop on top, the recurrence compiles in a quarter of
        the time. Not deeper than needed: each level of pasting copies the code below it.
    allocates : makes arrays. Only then are references counted: the counting of borrowed arrays
        alone took half of the time of a recurrent step.
    fastmath : set of LLVM flags; `FASTMATH` where nothing is said.
    """

    def decorate(function: Function) -> Function:
        folder = cache_folder(Path(function.__code__.co_filename).parent)
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(folder)
        try:
            options: dict[str, Any] = {
                "parallel": parallel,
                "fastmath": FASTMATH if fastmath is None else fastmath,
                "error_model": "numpy",
                "nogil": True,
                "no_cfunc_wrapper": True,  # no C library calls a kernel
                "_nrt": allocates or parallel,
            }
            if paste:
                options["inline"] = "always"
            elif inline:
                options["forceinline"] = True
            else:
                options["cache"] = _can_keep(folder)
            compiled: Function = numba.njit(**options)(function)
        finally:
            numba.config.CACHE_DIR = before
        return compiled

    return decorate
