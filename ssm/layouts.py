"""Foreign checkpoints: named tensors of the state-spaces/s4 classes -> Model.

Two layouts are known, both told apart by their kernel's names (Gu et al., S4D,
doi:10.48550/arXiv.2206.11893; code of github.com/state-spaces/s4):

- standalone S4D: kernel.{C (H, M, 2), log_dt (H), log_A_real, A_imag (H, M)}, no B (B = 1),
  A = -exp(log_A_real) + i A_imag, dt = exp(log_dt);
- S4Block with a diagonal kernel: layer.kernel.{C (1, H, M, 2), B (1, S, M, 2), inv_dt (H, 1)
  or (H, M), A_real, A_imag (S, M)}, A = -exp(A_real) - i A_imag, dt = exp(inv_dt); head h
  uses row h % S of A and B.

Both answer with 2 Re(C x). Keys are matched by how they end, so nested models are read as
well. Not told by the tensors, taken as the classes' defaults: exp as the transform of dt and A.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aimc_sim.errors import InputError, UsageError, nearest
from ssm.model import Complex, Layer, Model, Real

_NORM_EPSILON = 1e-5  # of torch.nn.LayerNorm and BatchNorm1d, whose files do not hold it
_S4D = ("C", "log_dt", "log_A_real", "A_imag")
_BLOCK = ("C", "B", "inv_dt", "A_real", "A_imag")
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_LAYER = r"^(?:(?P<block>(?:.*\.)?\d+)\.)?(?:[A-Za-z_]\w*\.)*?"
_ROLES = {
    "kernel": rf"{_LAYER}kernel\.(?P<name>{'|'.join(sorted({*_S4D, *_BLOCK}))})$",
    "skip": rf"{_LAYER}(?P<name>D)$",
    "mix": rf"{_LAYER}output_linear\.(?:0\.)?(?P<name>weight|bias)$",
    "norms": rf"^(?:.*\.)?norms\.(?P<index>\d+)\.(?:norm\.)?(?P<name>{'|'.join(_NORM)})$",
    "norm": rf"{_LAYER}norm\.(?:norm\.)?(?P<name>{'|'.join(_NORM)})$",
    "encoder": r"^(?:.*\.)?encoder\.(?:0\.)?(?P<name>weight|bias)$",
    "decoder": r"^(?:.*\.)?decoder\.(?:0\.)?(?:output_transform\.)?(?P<name>weight|bias)$",
}
_WORDS = (
    *sorted({*_S4D, *_BLOCK, *_NORM}), "D", "kernel", "layer", "layers", "s4_layers", "norm",
    "norms", "output_linear", "encoder", "decoder", "output_transform",
)
_QUESTIONS = {
    "norm": ("the norm stands before or after each layer", "norm='pre' or norm='post'",
             "--norm pre|post"),
    "disc": ("A and B were discretised by zero-order hold or bilinear",
             "disc='zoh' or disc='bilinear'", "--disc zoh|bilinear"),
    "pool": ("the answer is the mean over time or the last step", "pool='mean' or pool='last'",
             "--pool mean|last"),
}
_RESAVE = "re-save with torch.save(model.state_dict(), path)"

Tensors = Mapping[str, NDArray[Any]]
Blocks = dict[str, dict[str, str]]


def ask(asked: str, missing: list[str]) -> None:
    """Raise the UsageError that asks for the facts `missing`, if any, by argument and option."""
    if missing:
        raise UsageError(
            asked,
            "the file does not say whether "
            + ", nor whether ".join(_QUESTIONS[fact][0] for fact in missing),
            "pass " + ", ".join(_QUESTIONS[fact][1] for fact in missing)
            + f" (command line: {' '.join(_QUESTIONS[fact][2] for fact in missing)})",
        )


def discretise(a: Complex, b: Complex, dt: Real, disc: str) -> tuple[Complex, Complex]:
    """Return pole dA and drive dB of x' = a x + b u sampled every dt.

    zoh: dA = exp(dt a), dB = (dA - 1)/a b. bilinear: dA = (1 + dt a/2)/(1 - dt a/2),
    dB = dt/(1 - dt a/2) b.

    Parameters
    ----------
    a, b : (H, M) complex, in units of 1/dt.
    dt : (H, 1) or (H, M).
    disc : "zoh" or "bilinear".

    Raises
    ------
    UsageError : another rule; "dss" among them, whose input weight depends on the length of
        the sequence.

    Examples
    --------
    >>> pole, drive = discretise(np.array([[-2 + 0j]]), np.ones((1, 1), complex),
    ...     np.array([[0.5]]), "bilinear")
    >>> float(pole[0, 0].real), float(drive[0, 0].real)
    (0.3333333333333333, 0.3333333333333333)
    """
    exponent = dt * a
    if disc == "zoh":
        # (dA - 1)/a tends to dt where a vanishes; expm1 keeps the digits of slow modes
        slope = np.where(a == 0, dt, np.expm1(exponent) / np.where(a == 0, 1.0, a))
        return np.exp(exponent), slope * b
    if disc == "bilinear":
        return (1 + exponent / 2) / (1 - exponent / 2), dt / (1 - exponent / 2) * b
    raise UsageError(
        f"discretise with disc={disc!r}",
        "that kernel is divided by exp(L dt A) - 1: its weights change with the sequence "
        "length L, so no recurrence has them",
        "retrain or fine-tune with disc='zoh' or disc='bilinear'",
    )


def read_model(
    tensors: Tensors, *, norm: str | None, disc: str | None, pool: str | None,
    gate: str | None, asked: str,
) -> Model:
    """Return the Model of a state dict of one of the two layouts.

    Parameters
    ----------
    tensors : state dict as float or complex arrays.
    norm, disc, pool : what the file cannot say: None asks for it.
    gate : "none" where the mixing has H outputs and nothing follows it.
    asked : "load FILE", the first part of every error.

    Raises
    ------
    InputError : unknown, missing, contradicting or non-finite tensors; NPLR, bidirectional.
    UsageError : a fact that the file lacks was not given, or contradicts the file.
    """
    tensors = _plain_names(tensors, asked)
    _refuse_other_layouts(tensors, asked)
    blocks, ends = _sort_by_role(tensors, asked)
    order = _ordered(blocks, asked)
    has_norms = any(key.startswith("norm.") for block in order for key in blocks[block])
    _check_complete(blocks, ends, order, has_norms, asked)
    broken = [key for key, array in tensors.items() if not np.isfinite(array).all()]
    if broken:
        raise InputError(asked, f"NaN or infinite values in {_listed(broken)}",
                         "use a checkpoint from before the training diverged")
    if norm == "none" and has_norms:
        raise UsageError(f"{asked} with norm='none'", "the file has norm weights",
                         "pass norm='pre' or norm='post'")
    if norm not in (None, "none") and not has_norms:
        raise UsageError(f"{asked} with norm={norm!r}", "the file has no norm weights",
                         "leave norm out, or pass norm='none'")
    given = {"norm": norm if has_norms else "none", "disc": disc, "pool": pool}
    ask(asked, [fact for fact, value in given.items() if value is None])

    n_heads = _size(tensors, ends["encoder.bias"], 0, asked)
    reader = _LayerReader(tensors, n_heads, str(disc), asked)
    layers = [reader.read(blocks[block]) for block in order]
    n_outputs = {layer.mix_weight.shape[1] for layer in layers}
    if n_outputs == {n_heads} and gate is None:
        raise UsageError(
            asked, "the mixing has H outputs, so no GLU, and the file does not say what follows",
            "pass gate='none' (Python) if nothing does; other activations are not supported",
        )
    affine = any("norm.running_var" in blocks[block] for block in order)
    n_classes = _size(tensors, ends["decoder.bias"], 0, asked)
    d_input = _size(tensors, ends["encoder.weight"], 1, asked)
    return Model(
        encoder_weight=reader.take(ends["encoder.weight"], (n_heads, d_input)).T,
        encoder_bias=reader.take(ends["encoder.bias"], (n_heads,)),
        layers=tuple(layers),
        decoder_weight=reader.take(ends["decoder.weight"], (n_classes, n_heads)).T,
        decoder_bias=reader.take(ends["decoder.bias"], (n_classes,)),
        norm=str(given["norm"]), disc=str(disc), pool=str(pool),
        norm_kind="affine" if affine else "layer", norm_epsilon=_NORM_EPSILON,
        gate="none" if n_outputs == {n_heads} else "glu",
    )


class _LayerReader:
    """Turns the tensors of one block into a Layer, checking every shape against H."""

    def __init__(self, tensors: Tensors, n_heads: int, disc: str, asked: str) -> None:
        self.tensors, self.n_heads, self.disc, self.asked = tensors, n_heads, disc, asked

    def take(self, key: str, *shapes: tuple[int, ...]) -> Real:
        array = self.tensors[key]
        if array.shape not in shapes:
            raise InputError(
                self.asked,
                f"tensor {key} has shape {array.shape}, the other tensors ask for "
                + " or ".join(map(str, shapes)),
                "use the checkpoint as it was saved, of one model",
            )
        return np.asarray(array, dtype=np.float64)

    def complex(self, key: str, shape: tuple[int, ...]) -> Complex:
        if np.iscomplexobj(self.tensors[key]) and self.tensors[key].shape == shape:
            return np.asarray(self.tensors[key], dtype=np.complex128)
        pair = self.take(key, (*shape, 2))
        return np.asarray(pair[..., 0] + 1j * pair[..., 1])

    def read(self, keys: dict[str, str]) -> Layer:
        heads, is_block = self.n_heads, "inv_dt" in keys
        n_modes = _size(self.tensors, keys["A_imag"], 1, self.asked)
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            if is_block:
                a, b, c, dt = self._block_kernel(keys, n_modes)
            else:
                both = (heads, n_modes)
                decay = np.exp(self.take(keys["log_A_real"], both))
                a = -decay + 1j * self.take(keys["A_imag"], both)
                b, c = np.ones(both, np.complex128), self.complex(keys["C"], both)
                dt = np.exp(self.take(keys["log_dt"], (heads,), (heads, 1))).reshape(heads, 1)
            pole, drive = discretise(a, b, dt, self.disc)
        if not (np.isfinite(pole).all() and np.isfinite(drive).all()):
            raise InputError(self.asked, f"A and dt beside {keys['A_imag']} overflow",
                             "use a checkpoint from before the training diverged")
        columns = 1 if self.tensors[keys["mix.bias"]].shape == (heads,) else 2
        mixed = (columns * heads, heads)
        weight = self.take(keys["mix.weight"], mixed, (*mixed, 1)).reshape(mixed)
        scale, shift = self._norm(keys)
        return Layer(
            pole=pole, drive=drive, readout=c, mode_weight=np.full(pole.shape, 2.0),
            skip=self.take(keys["D"], (heads,), (1, heads)).reshape(heads),
            mix_weight=weight.T, mix_bias=self.take(keys["mix.bias"], (columns * heads,)),
            norm_scale=scale, norm_shift=shift,
        )

    def _block_kernel(
        self, keys: dict[str, str], n_modes: int
    ) -> tuple[Complex, Complex, Complex, Real]:
        heads, n_ssm = self.n_heads, _size(self.tensors, keys["A_imag"], 0, self.asked)
        if n_ssm == 0 or heads % n_ssm:
            raise InputError(
                self.asked, f"tensor {keys['A_imag']} has {n_ssm} rows for {heads} heads",
                "use a checkpoint whose n_ssm divides the number of heads",
            )
        own = (n_ssm, n_modes)
        a = -np.exp(self.take(keys["A_real"], own)) - 1j * self.take(keys["A_imag"], own)
        b = self.complex(keys["B"], (1, *own))[0]
        c = self.complex(keys["C"], (1, heads, n_modes))[0]
        dt = np.exp(self.take(keys["inv_dt"], (heads,), (heads, 1), (heads, n_modes)))
        copies = (heads // n_ssm, 1)  # einops 't n -> (v t) n': head h has row h % n_ssm
        return np.tile(a, copies), np.tile(b, copies), c, dt.reshape(heads, -1)

    def _norm(self, keys: dict[str, str]) -> tuple[Real, Real]:
        shape = (self.n_heads,)
        if "norm.weight" not in keys:
            return np.ones(shape), np.zeros(shape)
        scale, shift = self.take(keys["norm.weight"], shape), self.take(keys["norm.bias"], shape)
        if "norm.running_var" not in keys:
            return scale, shift
        variance = self.take(keys["norm.running_var"], shape)
        if (variance < 0).any():
            raise InputError(self.asked, f"{keys['norm.running_var']} has negative values",
                             "use the checkpoint as it was saved")
        folded = scale / np.sqrt(variance + _NORM_EPSILON)
        return folded, shift - self.take(keys["norm.running_mean"], shape) * folded


def _listed(keys: list[str], limit: int = 6) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


def _size(tensors: Tensors, key: str, axis: int, asked: str) -> int:
    shape = tensors[key].shape
    if len(shape) <= axis:
        raise InputError(asked, f"tensor {key} has shape {shape}, too few axes",
                         "use the checkpoint as it was saved, of one model")
    return int(shape[axis])


def _plain_names(tensors: Tensors, asked: str) -> dict[str, NDArray[Any]]:
    """Drop what wrappers add to names: module., _orig_mod. anywhere, model. in front."""
    plain: dict[str, NDArray[Any]] = {}
    for key, array in tensors.items():
        parts = [part for part in key.split(".") if part not in ("module", "_orig_mod")]
        while len(parts) > 1 and parts[0] == "model":
            parts = parts[1:]
        name = ".".join(parts)
        if name in plain:
            raise InputError(asked, f"tensor {name} is there twice, under different prefixes",
                             f"keep one model in the file: {_RESAVE}")
        plain[name] = array
    return plain


def _refuse_other_layouts(tensors: Tensors, asked: str) -> None:
    nplr = [key for key in tensors if re.search(r"(^|\.)kernel\.(P|l_kernel)$", key)]
    if nplr:
        raise InputError(
            asked, f"tensor {nplr[0]} belongs to an NPLR (DPLR) kernel, whose A is not diagonal",
            "train with mode='diag' (S4D)",
        )
    for key, array in tensors.items():
        n_axes = array.ndim - (0 if np.iscomplexobj(array) else 1)
        if re.search(r"(^|\.)kernel\.C$", key) and n_axes == 3 and array.shape[0] != 1:
            raise InputError(
                asked,
                f"tensor {key} has {array.shape[0]} channels: a bidirectional or multi-channel "
                "kernel, which is not one causal recurrence per head",
                "train with bidirectional=False and channels=1",
            )
    s5 = [key for key in tensors if re.search(r"(^|\.)Lambda_re$", key)]
    if s5:
        raise InputError(asked, f"tensor {s5[0]} belongs to an S5 layer, whose B and C are dense",
                         "use an S4D checkpoint")
    if any(re.search(r"(^|\.)kernel\.A_real$", key) for key in tensors) and not any(
        re.search(r"(^|\.)kernel\.A_imag", key) for key in tensors
    ):
        raise InputError(asked, "it has kernel.A_real without A_imag: a real kernel (is_real)",
                         "train with is_real=False")


def _sort_by_role(tensors: Tensors, asked: str) -> tuple[Blocks, dict[str, str]]:
    """Return {block: {role: key}} of the layers and {"encoder.weight": key, ...}."""
    blocks: Blocks = {}
    ends: dict[str, str] = {}
    norms: list[tuple[int, str, str]] = []
    unknown: list[str] = []

    def claim(roles: dict[str, str], role: str, key: str) -> None:
        if role in roles:
            raise InputError(asked, f"tensors {roles[role]} and {key} both look like {role}",
                             f"keep one model in the file: {_RESAVE}")
        roles[role] = key

    for key in tensors:
        for role, pattern in _ROLES.items():
            match = re.match(pattern, key)
            if match is None:
                continue
            name = match["name"]
            if role in ("encoder", "decoder"):
                claim(ends, f"{role}.{name}", key)
            elif role == "norms":
                norms.append((int(match["index"]), f"norm.{name}", key))
            else:
                named = name if role in ("kernel", "skip") else f"{role}.{name}"
                claim(blocks.setdefault(match["block"] or "", {}), named, key)
            break
        else:
            unknown.append(key)
    by_index = {int(block.rsplit(".", 1)[-1] or 0): block
                for block, keys in blocks.items() if "A_imag" in keys or "C" in keys}
    for index, role, key in norms:
        if index in by_index:
            claim(blocks[by_index[index]], role, key)
        else:
            unknown.append(key)
    for block in [block for block in blocks if block not in by_index.values()]:
        unknown.extend(blocks.pop(block).values())
    if unknown:
        raise InputError(
            asked,
            f"keys that no S4D layer has: {_listed(unknown)}{_suggestion(unknown)}",
            "rename them, or leave them out of the state dict if the model does not use them",
        )
    return blocks, ends


def _suggestion(unknown: list[str]) -> str:
    for key in unknown:
        parts = [part if part in _WORDS or part.isdigit() else nearest(part, _WORDS) or part
                 for part in key.split(".")]
        if ".".join(parts) != key:
            return f"; did you mean {'.'.join(parts)}?"
    return ""


def _ordered(blocks: Blocks, asked: str) -> list[str]:
    if not blocks:
        raise InputError(asked, "it has no S4D layers (no keys that end in kernel.C)",
                         "use a checkpoint of state-spaces/s4 or one saved by aimc-sim")
    order = sorted(blocks, key=lambda block: [int(i) for i in re.findall(r"\d+", block)])
    numbers = [int(block.rsplit(".", 1)[-1] or 0) for block in order]
    if numbers != list(range(len(numbers))):
        raise InputError(asked, f"its layers are numbered {', '.join(map(str, numbers))}",
                         "use a checkpoint with all layers, counted from 0")
    return order


def _check_complete(
    blocks: Blocks, ends: dict[str, str], order: list[str], has_norms: bool, asked: str
) -> None:
    missing = [f"{end}.{name}" for end in ("encoder", "decoder") for name in ("weight", "bias")
               if f"{end}.{name}" not in ends]
    affine = any("norm.running_var" in keys for keys in blocks.values())
    for block in order:
        keys = blocks[block]
        kernel = _BLOCK if {"inv_dt", "A_real", "B"} & set(keys) else _S4D
        wanted = {name: f"kernel.{name}" for name in kernel} | {"D": "D"}
        wanted |= {f"mix.{name}": f"output_linear.0.{name}" for name in ("weight", "bias")}
        if has_norms:
            names = _NORM[:4] if affine else _NORM[:2]
            wanted |= {f"norm.{name}": f"norm.{name}" for name in names}
        missing += [f"{block}.{shown}" for role, shown in wanted.items() if role not in keys]
        extra = [keys[name] for name in {*_BLOCK, *_S4D} - set(kernel) if name in keys]
        if extra:
            raise InputError(asked, f"key {_listed(sorted(extra))} does not go with {kernel[-2]}",
                             "use the checkpoint of one of the two state-spaces layouts")
    if missing:
        raise InputError(asked, f"it lacks {_listed(missing)}",
                         "use the whole state dict of the model")
