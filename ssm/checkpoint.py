"""Read and write model files, safely: a file's pickle may name tensors and numbers, no code.

Read: our own .pt and .safetensors, and the state-spaces layouts of ssm.layouts in .pt
(torch.save, zip or legacy), .safetensors and .npz. The format is told by the file's bytes.
torch is imported inside the functions, so that `import ssm` stays fast.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickletools
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aimc_sim.errors import AimcError, InputError, UsageError
from ssm import layouts
from ssm.gridfiles import pack, unpack
from ssm.model import (
    LAYER_ARRAYS,
    LAYER_STEPS,
    MODEL_ARRAYS,
    MODEL_STEPS,
    Layer,
    Model,
    check_choice,
)

SCHEMA = "aimc-sim.model/1"
WITH_GRIDS = "aimc-sim.model/2"  # a file that holds integers and scales of weights
_FACTS = ("norm", "norm_kind", "norm_epsilon", "disc", "pool", "activation", "gate", "task",
          "precision", "name")
_LATER_FACTS = ("unpruned_states",)  # that older files lack
_PLAIN = "aimc-sim.safetensors"  # the same tensors again, inside our .pt files
_RESAVE = "re-save with torch.save(model.state_dict(), path) where the file was made"
_TENSOR_BUILDERS = ("torch._utils.", "collections.", "numpy", "_codecs.")

Tensors = dict[str, NDArray[Any]]


def load(
    path: str | os.PathLike[str], *, norm: str | None = None, disc: str | None = None,
    pool: str | None = None, input: tuple[ArrayLike, ArrayLike] | None = None,
    gate: str | None = None,
) -> Model:
    """Return the trained model of a file, discretised, in float64.

    Parameters
    ----------
    path : .pt, .pth, .ckpt, .safetensors or .npz.
    norm : "pre" or "post", for files that do not say where their norm stands.
    disc : "zoh" or "bilinear", for files that do not say how they are discretised.
    pool : "mean" or "last", for files that do not say how they pool over time.
    input : (mean, std) per feature that training subtracted and divided by, folded into the
        encoder; None where the data come prepared.
    gate : "none" for a foreign file whose mixing has H outputs and no activation behind.

    Raises
    ------
    UsageError : a fact that the file lacks was not given, or contradicts the file.
    InputError : missing, damaged or unsafe file, unknown layout, contradicting shapes,
        values that are not finite, poles outside the unit circle.

    Examples
    --------
    >>> load("absent.pt")
    Traceback (most recent call last):
        ...
    aimc_sim.errors.InputError: Load absent.pt. There is no such file. Check the path.
    """
    path = Path(path)
    asked = f"load {path}"
    given = {"norm": norm, "disc": disc, "pool": pool, "gate": gate}
    for fact, value in given.items():
        if value is not None:
            check_choice(fact, value)
    data = _read_bytes(path, asked)
    tensors, metadata = _parse(data, asked)
    if metadata is None:
        model = layouts.read_model(
            tensors, norm=norm, disc=disc, pool=pool, gate=gate, asked=asked
        ).replace(name=path.stem)
    else:
        model = _own_model(tensors, metadata, asked)
        for fact, value in given.items():
            if value not in (None, getattr(model, fact)):
                raise UsageError(f"{asked} with {fact}={value!r}",
                                 f"the file says {fact}={getattr(model, fact)!r}",
                                 f"leave {fact} out")
    _check_stable(model, asked)
    model = model.replace(sha256=hashlib.sha256(data).hexdigest())
    return model if input is None else _fold_input(model, input, asked)


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model and its facts to `path`, whole or not at all.

    Parameters
    ----------
    model : any Model; complex arrays are stored as pairs, and every array in the narrowest
        type that holds its numbers exactly (`ssm.compact` makes small files).
    path : ends in .pt or .safetensors, which chooses the format; replaced if it exists.

    Raises
    ------
    UsageError : another ending, a folder that does not exist, no right to write.
    """
    path = Path(path)
    asked = f"save a model as {path}"
    if path.suffix not in (".pt", ".safetensors"):
        raise UsageError(asked, f"the ending '{path.suffix}' names no model format",
                         "end the name in .pt or .safetensors")
    if not path.parent.is_dir():
        raise UsageError(asked, f"there is no folder {path.parent}", "make the folder first")
    data = to_bytes(model, path.suffix)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(asked, f"the system refuses: {error.strerror}",
                         "choose a place that can be written") from error
    finally:
        temporary.unlink(missing_ok=True)


def to_bytes(model: Model, suffix: str = ".safetensors") -> bytes:
    """Return a model and its facts as the bytes of a .pt or .safetensors file."""
    arrays = {name: getattr(model, name) for name in MODEL_ARRAYS | MODEL_STEPS}
    for index, layer in enumerate(model.layers):
        names = LAYER_ARRAYS | LAYER_STEPS
        arrays |= {f"layers.{index}.{name}": getattr(layer, name) for name in names}
    grids = dict(model.grids)
    for index, layer in enumerate(model.layers):
        grids |= {f"layers.{index}.{name}": grid for name, grid in layer.grids.items()}
    arrays = {key: array for key, array in arrays.items() if array is not None and key not in grids}
    real = {key: np.stack([array.real, array.imag], -1) if np.iscomplexobj(array) else array
            for key, array in arrays.items()}
    facts = {name: getattr(model, name) for name in _FACTS}
    facts |= {name: value for name in _LATER_FACTS if (value := getattr(model, name)) is not None}
    facts["precision"] = None if model.precision is None else dict(model.precision)
    metadata = {"schema": SCHEMA, "facts": json.dumps(facts, sort_keys=True)}
    real = {key: _narrowest(array) for key, array in real.items()}
    if grids:
        integers, forms = pack(grids)
        real, metadata = real | integers, metadata | {"schema": WITH_GRIDS, "grids": forms}
    plain = None
    try:
        from safetensors.numpy import save as serialise

        plain = serialise(real, metadata)
    except ModuleNotFoundError:  # a machine for training: a .pt file without it reads as well
        if suffix == ".safetensors":
            raise
    if suffix == ".safetensors":
        assert plain is not None
        return plain
    import torch

    buffer = io.BytesIO()
    torch.save({"metadata": metadata}
               | {key: torch.from_numpy(array.copy()) for key, array in real.items()}, buffer)
    if plain is None:
        return buffer.getvalue()
    with zipfile.ZipFile(buffer, "a") as archive:
        # torch passes over a file that it does not know; we need no torch to read this one,
        # and importing torch is half of the time of a short run
        archive.writestr(f"{archive.namelist()[0].split('/')[0]}/{_PLAIN}", plain)
    return buffer.getvalue()


def _narrowest(array: NDArray[Any]) -> NDArray[Any]:
    """Return the same numbers in the narrowest of a few types that holds them all exactly."""
    for kind in (np.int8, np.float16, np.float32):
        with np.errstate(invalid="ignore", over="ignore"):
            narrow = array.astype(kind)
        if np.array_equal(narrow, array):
            return narrow
    return array


def from_bytes(data: bytes, asked: str) -> Model:
    """Return the model of `to_bytes`; `asked` opens the message of an error."""
    tensors, metadata = _parse(data, asked)
    if metadata is None:
        raise InputError(asked, "the model in it has no metadata", "save it again")
    return _own_model(tensors, metadata, asked)


def _read_bytes(path: Path, asked: str) -> bytes:
    if path.is_dir():
        raise InputError(asked, "it is a directory", "name the checkpoint file inside it")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(asked, "there is no such file", "check the path") from None
    except OSError as error:
        raise InputError(asked, f"it cannot be read: {error.strerror}",
                         "check the path and its permissions") from error
    if not data:
        raise InputError(asked, "the file is empty", "copy or download it again")
    return data


def _parse(data: bytes, asked: str) -> tuple[Tensors, Mapping[str, Any] | None]:
    """Return the tensors of a file and, of our own files, the metadata."""
    if data.startswith(b"version https://git-lfs"):
        raise InputError(asked, "it is a Git LFS pointer, not the file itself", "git lfs pull")
    if data.startswith(b"PK"):
        try:
            names = zipfile.ZipFile(io.BytesIO(data)).namelist()
        except zipfile.BadZipFile as error:
            raise _damaged(asked) from error
        plain = next((name for name in names if name.endswith(f"/{_PLAIN}")), None)
        if plain is not None:
            return _parse_safetensors(_member(data, plain, asked), asked)
        if any(name.endswith(".npy") for name in names):
            return _parse_npz(data, asked), None
        if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
            raise InputError(asked, "it is a TorchScript archive, which holds a program", _RESAVE)
        if any(name.endswith(("archive_format", "serialized_exported_program.json"))
               for name in names):
            raise InputError(asked, "it is a .pt2 archive of torch.export, which holds a program",
                             _RESAVE)
        if not any(name.endswith("data.pkl") for name in names):
            raise InputError(asked, "it is a zip file without weights", "give a .pt or .npz file")
        return _tensors(_unpickle(data, asked, legacy=False), asked)
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < 100_000_000:
        return _parse_safetensors(data, asked)
    if data.startswith(b"\x80"):
        return _tensors(_unpickle(data, asked, legacy=True), asked)
    raise InputError(asked, "it is in no format that is known here",
                     "give a .pt file of torch.save, a .safetensors or a .npz file")


def _member(data: bytes, name: str, asked: str) -> bytes:
    try:
        return zipfile.ZipFile(io.BytesIO(data)).read(name)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(asked) from error


def _damaged(asked: str) -> InputError:
    return InputError(asked, "the file is truncated or damaged", "copy or download it again")


def _parse_npz(data: bytes, asked: str) -> Tensors:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {key: _array(key, archive[key], asked) for key in archive}
    except AimcError:
        raise
    except Exception as error:  # a damaged zip fails in many ways inside numpy
        if "allow_pickle" not in str(error):
            raise _damaged(asked) from error
        raise InputError(asked, "it has object arrays, which could hold a program",
                         "save arrays of numbers only") from error


def _parse_safetensors(data: bytes, asked: str) -> tuple[Tensors, Mapping[str, Any] | None]:
    from safetensors import SafetensorError

    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        metadata = header.pop("__metadata__", None)
        exotic = any(str(entry["dtype"]).startswith(("BF", "F8")) for entry in header.values())
        backend = "torch" if exotic else "numpy"  # numpy has no such types; torch is slow to import
        tensors = import_module(f"safetensors.{backend}").load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(asked) from error
    arrays = {key: _array(key, value, asked) for key, value in tensors.items()}
    return arrays, metadata if metadata and "schema" in metadata else None


@contextlib.contextmanager
def _numpy_allowed() -> Iterator[None]:
    """Let the safe unpickler build numpy scalars and arrays, by their old names as well."""
    import torch
    from numpy._core import multiarray

    builders = [(getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
                for core in ("core", "_core") for name in ("scalar", "_reconstruct")]
    dtypes = [getattr(np.dtypes, name) for name in np.dtypes.__all__ if "Object" not in name]
    with torch.serialization.safe_globals([*builders, *dtypes, np.ndarray, np.dtype]):
        yield


def _unpickle(data: bytes, asked: str, *, legacy: bool) -> Any:
    """Return what torch.save wrote, or refuse; nothing in the file is ever called."""
    import torch

    with warnings.catch_warnings(), _numpy_allowed():
        warnings.simplefilter("ignore")  # on pickle protocols, of no use to the caller
        try:
            if not legacy:
                names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
                if names:
                    raise _unsafe(names, asked)
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except AimcError:
            raise
        except Exception as error:  # a damaged pickle fails in many ways
            if not legacy:
                raise _damaged(asked) from error
            names = _named_in_pickle(data)
            raise _unsafe(names, asked) if names else InputError(
                asked, "it is a plain pickle, or a damaged file of torch.save", _RESAVE
            ) from error


def _unsafe(names: list[str], asked: str) -> InputError:
    return InputError(
        asked, f"its pickle asks for code to run: {', '.join(sorted(names))}; nothing was run",
        _RESAVE,
    )


def _named_in_pickle(data: bytes) -> list[str]:
    """Return the globals that a refused legacy file names beyond tensors, without running it."""
    found: set[str] = set()
    stream = io.BytesIO(data)
    strings: list[str] = []
    memo: dict[int, str] = {}
    last = ""
    with contextlib.suppress(ValueError):  # raw storages follow the last pickle
        while stream.tell() < len(data):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    found.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    found.add(".".join(strings[-2:]))
                elif opcode.name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
                    memo[len(memo) if argument is None else int(argument)] = last
                elif "GET" in opcode.name:
                    strings.append(memo.get(int(argument or 0), ""))
                last = argument if isinstance(argument, str) else last
                if last and last is argument:
                    strings.append(last)
    return [name for name in found
            if not name.startswith(_TENSOR_BUILDERS) and not name.endswith("Storage")]


def _tensors(payload: Any, asked: str) -> tuple[Tensors, Mapping[str, Any] | None]:
    if not isinstance(payload, Mapping):
        raise InputError(asked, f"it holds a {type(payload).__name__}, not a state dict", _RESAVE)
    metadata = payload.get("metadata")
    if isinstance(metadata, Mapping) and "schema" in metadata:
        own = {str(key): _array(str(key), value, asked)
               for key, value in payload.items() if key != "metadata"}
        return own, metadata
    found = dict(_state_dicts(payload, "the file"))
    if len(found) != 1:
        shown = ", ".join(map(str, list(payload)[:6])) or "nothing"
        raise InputError(
            asked,
            f"it holds several models: {', '.join(found)}" if found
            else f"it has no S4D layers (no keys with kernel.); it holds {shown}",
            _RESAVE if found else "use a checkpoint of state-spaces/s4 or one saved by aimc-sim",
        )
    (state,) = found.values()
    # numbers beside the tensors, such as an epoch, are no weights
    return {key: _array(key, value, asked) for key, value in state.items()
            if not isinstance(value, (int, float, str, type(None)))}, None


def _state_dicts(
    payload: Mapping[Any, Any], where: str, depth: int = 3
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the mappings inside a checkpoint ('model', 'state_dict', ...) with S4D or S5 keys."""
    keys = [key for key in payload if isinstance(key, str)]
    if any("kernel." in key or key.endswith("Lambda_re") for key in keys):
        yield where, {key: payload[key] for key in keys}
    elif depth:
        for key, value in payload.items():
            if isinstance(value, Mapping):
                yield from _state_dicts(value, str(key), depth - 1)


def _array(key: str, value: Any, asked: str) -> NDArray[Any]:
    """Return a tensor or array as float64 or complex128."""
    array: Any = value
    if not isinstance(value, np.ndarray):
        import torch

        if not isinstance(value, torch.Tensor) or value.is_quantized or value.is_sparse:
            raise InputError(asked, f"{type(value).__name__} {key} is no dense float tensor",
                             _RESAVE)
        value = value.detach()
        array = value.to(torch.complex128 if value.is_complex() else torch.float64).numpy()
    if array.dtype.kind not in "fciu":
        raise InputError(asked, f"tensor {key} holds {array.dtype}, not numbers",
                         "save arrays of numbers only")
    return np.asarray(array, dtype=np.complex128 if array.dtype.kind == "c" else np.float64)


def _own_model(tensors: Tensors, metadata: Mapping[str, Any], asked: str) -> Model:
    name, _, version = str(metadata["schema"]).partition("/")
    if name != SCHEMA.split("/")[0] or not version.isdigit():
        raise InputError(asked, f"its schema is '{metadata['schema']}'", f"give {SCHEMA}")
    if int(version) > int(WITH_GRIDS.split("/")[1]):
        raise InputError(asked, f"its schema {metadata['schema']} is newer than {WITH_GRIDS}",
                         "install a newer aimc-sim")
    grids, tensors = unpack(tensors, metadata.get("grids"), asked)
    try:
        facts = json.loads(metadata["facts"])
        fields: dict[str, Any] = {fact: facts[fact] for fact in _FACTS}
        fields |= {fact: facts[fact] for fact in _LATER_FACTS if fact in facts}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(asked, f"its facts are damaged: {error}", "save it again") from error
    n_layers = len({key.split(".")[1] for key in (*tensors, *grids) if key.startswith("layers.")})
    wanted = [*MODEL_ARRAYS, *(f"layers.{index}.{array}" for index in range(n_layers)
                               for array in LAYER_ARRAYS)]
    optional = [*MODEL_STEPS, *(f"layers.{index}.{array}" for index in range(n_layers)
                                for array in LAYER_STEPS)]
    there = {*tensors, *grids}
    wrong = sorted({*wanted} - there | there - {*wanted, *optional})
    if wrong:
        raise InputError(asked, f"keys that are missing or unknown: {', '.join(wrong[:6])}",
                         "save the model again with this version")

    def array(key: str) -> NDArray[Any]:
        if key in grids:
            return grids[key].values()
        value = tensors[key]
        kinds = LAYER_ARRAYS | LAYER_STEPS | MODEL_ARRAYS
        if kinds[key.rsplit(".", 1)[-1]][0] is np.complex128:
            if value.ndim != 3 or value.shape[-1] != 2:
                raise InputError(asked, f"tensor {key} has shape {value.shape}, not (H, M, 2)",
                                 "save the model again")
            return np.ascontiguousarray(value).view(np.complex128)[..., 0]
        return value

    try:
        fields |= {key: array(key) for key in MODEL_ARRAYS | MODEL_STEPS if key in there}
        fields["grids"] = {key: grid for key, grid in grids.items() if key in MODEL_ARRAYS}
        fields["layers"] = tuple(
            Layer(grids={name: grids[key] for name in LAYER_ARRAYS
                         if (key := f"layers.{index}.{name}") in grids},
                  **{name: array(key) for name in LAYER_ARRAYS | LAYER_STEPS
                     if (key := f"layers.{index}.{name}") in there})
            for index in range(n_layers)
        )
        return Model(**fields)
    except (AimcError, TypeError) as error:
        found = error.found if isinstance(error, AimcError) else str(error)
        raise InputError(asked, found, "save the model again") from error


def _check_stable(model: Model, asked: str) -> None:
    outside = [(index, *place) for index, layer in enumerate(model.layers)
               for place in np.argwhere(np.abs(layer.pole) > 1)]
    if outside:
        index, head, mode = outside[0]
        size = abs(model.layers[index].pole[head, mode])
        raise InputError(
            asked,
            f"it is unstable: {len(outside)} poles lie outside the unit circle, the first in "
            f"layer {index}, head {head}, mode {mode} with |pole| = {size:.6g}",
            "train with A's real part below zero, or cap |pole| < 1 before saving",
        )


def _fold_input(model: Model, transform: tuple[ArrayLike, ArrayLike], asked: str) -> Model:
    """Return the model of raw data, where training saw (x - mean)/std."""
    try:
        mean, std = (np.broadcast_to(np.asarray(part, float), model.d_input) for part in transform)
        valid = bool(np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all())
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise UsageError(f"{asked} with input={transform!r}", "it is no (mean, std)",
                         f"give two numbers or two rows of {model.d_input}, std above 0")
    weight = model.encoder_weight / std[:, None]
    return model.replace(encoder_weight=weight, encoder_bias=model.encoder_bias - mean @ weight)
