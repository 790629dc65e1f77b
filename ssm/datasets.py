"""Published data sets from a local folder, or downloaded with a checksum; nothing is bundled."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from aimc_sim.errors import InputError, UsageError

FOLDER = "AIMC_DATA"  # environment variable with the local folder
_PARTS = {"x_train": "train-images-idx3-ubyte", "y_train": "train-labels-idx1-ubyte",
          "x_test": "t10k-images-idx3-ubyte", "y_test": "t10k-labels-idx1-ubyte"}
# where the four files are, and their MD5 as published by LeCun et al. and by Xiao et al.
_SOURCES: dict[str, tuple[str, dict[str, str]]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {"x_train": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
         "y_train": "d53e105ee54ea40749a09fcbcd1e9432",
         "x_test": "9fb629c4189551a2d022fa330f9573f3",
         "y_test": "ec29112dd5afa0611ce80d1b7f02629c"},
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {"x_train": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
         "y_train": "25c81989df183df01b3e8a0aad5dffbe",
         "x_test": "bef4ecab320f06d8554ea6380940ec79",
         "y_test": "bb300cfdad3c16e7a12a480ee83cd310"},
    ),
}
_FSDD = "https://github.com/Jakobovski/free-spoken-digit-dataset"
_FSDD_ARCHIVE = f"{_FSDD}/archive/26eb9aaf76e81b692f806f9140c2d2777410d7a1.zip"
# of its 3,000 recordings (`_sum_of`): archives that a server packs anew need not stay the same
_FSDD_SUM = "90e46c5e2ce1e564bbf11ba4eb5a086b7357721a52c58d54705223c1c17d0e54"
_FSDD_RATE = 8000  # samples a second
_FSDD_TESTED = 5  # recordings 0 .. 4 of every speaker and digit are the test set

Arrays = dict[str, np.ndarray]
Recordings = tuple[list[np.ndarray], np.ndarray, np.ndarray]  # clips, labels, which are for test


def local_folder(data: str | Path | None) -> Path | None:
    """Return where local data lie: the argument, else what AIMC_DATA says, else None."""
    found = data or os.environ.get(FOLDER)
    return None if not found else Path(found)


def is_local(name: str, data: str | Path | None = None) -> bool:
    """Return whether the data set `name` is there without a download."""
    place = local_folder(data)
    if place is None:
        return False
    if place.is_file():
        return True
    if (place / f"{name}.npz").is_file() or (name == "fsdd" and (place / "recordings").is_dir()):
        return True
    return name in _SOURCES and all(_idx(place, name, part) for part in _PARTS)


def load_images(name: str, data: str | Path | None = None) -> Arrays:
    """Return x_train, y_train, x_test, y_test of "mnist" or "fashion-mnist", uint8.

    From `data` or the folder in AIMC_DATA: <name>.npz with those arrays, or the four IDX files,
    packed or not, there or in a folder <name>. Else downloaded, by pooch (the extra `data`), and
    kept in the user's cache.

    References: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Proc. IEEE 86, 2278 (1998),
    doi:10.1109/5.726791; H. Xiao, K. Rasul, R. Vollgraf, doi:10.48550/arXiv.1708.07747.

    Raises InputError for damaged files, UsageError where the data are neither there nor to be
    had.
    """
    place = local_folder(data)
    if place is not None:
        archive = place if place.is_file() else place / f"{name}.npz"
        if archive.is_file():
            return _checked_images(_read_npz(archive, tuple(_PARTS)), archive)
        paths = {part: _idx(place, name, part) for part in _PARTS}
        if all(paths.values()):
            return {part: _read_idx(path) for part, path in paths.items() if path is not None}
        if data is not None:
            raise UsageError(
                f"load {name} from {place}", f"there is no {name}.npz, nor the four IDX files",
                f"put {name}.npz with {', '.join(_PARTS)} there, or leave the folder out",
            )
    return {part: _read_idx(_download(name, part)) for part in _PARTS}


def load_fsdd(data: str | Path | None = None) -> Recordings:
    """Return recordings (int16, 8 kHz), labels and which are for test, of spoken digits.

    From `data` or the folder in AIMC_DATA: fsdd.npz (audio, offsets, label, index), or the
    folder `recordings` of the published repository. Else downloaded, as in `load_images`.

    Reference: Z. Jackson et al., Free Spoken Digit Dataset, doi:10.5281/zenodo.1342401,
    CC BY-SA 4.0; its own split: recordings 0 to 4 of every speaker and digit are the test set.

    Raises InputError for damaged files, UsageError where the data are neither there nor to be
    had.
    """
    place = local_folder(data)
    if place is not None:
        archive = place if place.is_file() else place / "fsdd.npz"
        if archive.is_file():
            a = _read_npz(archive, ("audio", "offsets", "label", "index"))
            clips = np.split(a["audio"], a["offsets"][1:-1])
            return clips, a["label"].astype(np.int64), a["index"] < _FSDD_TESTED
        if (place / "recordings").is_dir():
            return _read_recordings(place / "recordings")
        if data is not None:
            raise UsageError(
                f"load fsdd from {place}", "there is no fsdd.npz, nor a folder recordings",
                f"git clone {_FSDD} and give that folder, or leave it out",
            )
    return _download_recordings()


def _idx(place: Path, name: str, part: str) -> Path | None:
    stem = _PARTS[part]
    for folder in (place, place / name):
        for file in (folder / f"{stem}.gz", folder / stem):
            if file.is_file():
                return file
    return None


def _read_npz(path: Path, names: tuple[str, ...]) -> Arrays:
    asked = f"load {path}"
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive.files]
            if not missing:
                return {name: archive[name] for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(asked, f"it cannot be read ({error})", "copy it again") from error
    raise InputError(asked, f"it lacks {', '.join(missing)}", "save those arrays with np.savez")


def _checked_images(arrays: Arrays, path: Path) -> Arrays:
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.ndim != 3 or x.shape[1:] != (28, 28) or x.dtype != np.uint8 or y.shape != (len(x),):
            raise InputError(
                f"load {path}", f"x_{part} has shape {x.shape} and type {x.dtype}, y {y.shape}",
                "give uint8 images (n, 28, 28) and labels (n,)",
            )
    return arrays


def _read_idx(path: Path) -> np.ndarray:
    """Return the array of an IDX file of bytes, packed with gzip or not."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError) as error:
        raise InputError(f"load {path}", f"it cannot be read ({error})", "copy it again") from error
    n_axes = data[3] if len(data) > 4 and data[:3] == b"\x00\x00\x08" else 0
    shape = np.frombuffer(data, ">u4", n_axes, 4) if n_axes else np.zeros(0, int)
    if not n_axes or len(data) != 4 + 4 * n_axes + int(np.prod(shape)):
        raise InputError(f"load {path}", "it is no IDX file of bytes, or cut off", "copy it again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def _download(name: str, part: str) -> Path:
    base, sums = _SOURCES[name]
    file = f"{_PARTS[part]}.gz"
    do = f"set {FOLDER} to a folder with {name}.npz or the four IDX files"
    return _retrieve(name, base + file, file, f"md5:{sums[part]}", do)


def _retrieve(name: str, url: str, file: str, known_hash: str | None, do: str) -> Path:
    """Return a downloaded file in the user's cache; None: its caller checks what is in it."""
    asked = f"load {name}"
    try:
        import pooch
    except ImportError:
        raise UsageError(
            asked, f"it is not in a local folder ({FOLDER} is "
            f"{os.environ.get(FOLDER) or 'not set'}), and downloads need pooch",
            f"{do}, or pip install 'aimc-sim[data]'",
        ) from None
    pooch.get_logger().setLevel("WARNING")  # it would ask for a checksum to be written down
    try:
        path: Any = pooch.retrieve(
            url, known_hash=known_hash, fname=file, path=pooch.os_cache("aimc-sim") / name
        )
    except (OSError, ValueError) as error:  # no network; another checksum
        raise UsageError(asked, f"{url} cannot be had ({error})", do) from error
    return Path(path)


def _download_recordings() -> Recordings:
    """Return the recordings of the published archive, whose samples and labels have their sum."""
    do = f"git clone {_FSDD} and set {FOLDER} to that folder"
    path = _retrieve("fsdd", _FSDD_ARCHIVE, "fsdd.zip", None, do)
    try:
        with zipfile.ZipFile(path) as archive:
            files = {Path(name).name: name for name in archive.namelist() if name.endswith(".wav")}
            found = _recordings({
                name: io.BytesIO(archive.read(inside)) for name, inside in sorted(files.items())
            })
            right = _sum_of(found) == _FSDD_SUM
    except (OSError, EOFError, zipfile.BadZipFile, InputError):
        right = False
    if not right:
        path.unlink()  # or the next attempt would find it again
        raise UsageError("load fsdd", f"{_FSDD_ARCHIVE} gives other recordings", do)
    return found


def _sum_of(found: Recordings) -> str:
    """Return the SHA-256 of samples, labels and split."""
    clips, labels, tested = found
    digest = hashlib.sha256(labels.astype(np.uint8).tobytes() + tested.astype(np.uint8).tobytes())
    for clip in clips:
        digest.update(clip.astype("<i2").tobytes() + b"|")
    return digest.hexdigest()


def _read_recordings(folder: Path) -> Recordings:
    """Return clips, labels and test mask of files <digit>_<speaker>_<index>.wav."""
    found = _recordings({path.name: path for path in sorted(folder.glob("*_*_*.wav"))})
    if not found[0]:
        raise InputError(f"load {folder}", "no recordings are in it", "clone the data again")
    return found


def _recordings(files: dict[str, Path | io.BytesIO]) -> Recordings:
    import wave

    clips, labels, tested = [], [], []
    for name, source in files.items():
        try:
            digit, _, index = Path(name).stem.split("_")
            with wave.open(str(source) if isinstance(source, Path) else source) as file:
                if (file.getnchannels(), file.getsampwidth()) != (1, 2) \
                        or file.getframerate() != _FSDD_RATE:
                    raise wave.Error("not one channel of 16 bits at 8 kHz")
                clips.append(np.frombuffer(file.readframes(file.getnframes()), "<i2"))
            labels.append(int(digit))
            tested.append(int(index) < _FSDD_TESTED)
        except (OSError, EOFError, ValueError, wave.Error) as error:
            raise InputError(f"load {name}", str(error), "clone the data again") from error
    return clips, np.array(labels), np.array(tested)


def log_mel(
    clip: np.ndarray, n_frames: int = 64, n_bands: int = 32, rate: int = _FSDD_RATE
) -> np.ndarray:
    """Return the log-mel spectrum (n_frames, n_bands) of the first second of sound, float32.

    Hann windows of 32 ms, one every 1/64 s; power in triangular bands evenly spaced on the mel
    scale 2595 log10(1 + f/700) up to half of the rate; (4 + log10(power + 1e-4))/8, silence 0.
    """
    hop, width = rate // n_frames, rate * 32 // 1000
    sound = np.zeros(hop * (n_frames - 1) + width)
    part = np.asarray(clip[: len(sound)], float) / 32768.0
    sound[: len(part)] = part
    frames = np.lib.stride_tricks.sliding_window_view(sound, width)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(width), axis=1)) ** 2
    mel = np.linspace(0.0, 2595.0 * np.log10(1.0 + 0.5 * rate / 700.0), n_bands + 2)
    edges = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    frequency = np.fft.rfftfreq(width, 1.0 / rate)
    rising = (frequency[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequency[:, None]) / np.diff(edges)[1:]
    bands = power @ np.clip(np.minimum(rising, falling), 0.0, None)
    return np.asarray((4.0 + np.log10(bands + 1e-4)) / 8.0, np.float32)
