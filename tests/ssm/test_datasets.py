"""Data sets are read from local files in each of their forms, or refused in words."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import sys
import threading
import wave
import zipfile

import numpy as np
import pytest

from aimc_sim.errors import InputError, UsageError
from ssm import datasets
from ssm.tasks import is_at_hand, load_task


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 6), ("test", 4)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"y_{part}"] = rng.integers(0, 10, n, np.uint8)
    return arrays


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.tobytes()


def test_archive_and_idx_files_packed_or_not_are_the_same_task(images, tmp_path):
    np.savez(tmp_path / "mnist.npz", **images)
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    (packed / "mnist").mkdir(parents=True)
    plain.mkdir()
    for part, stem in datasets._PARTS.items():
        (plain / stem).write_bytes(idx(images[part]))
        (packed / "mnist" / f"{stem}.gz").write_bytes(gzip.compress(idx(images[part])))
    for place in (tmp_path, tmp_path / "mnist.npz", plain, packed):
        task = load_task("smnist", place)
        np.testing.assert_array_equal(task.x_test[:, :, 0] * 255, images["x_test"].reshape(4, -1))
        assert task.x_train.shape == (6, 784, 1) and task.y_train.dtype == np.int64


def test_rows_and_half_resolution_hold_the_same_pixels(images, tmp_path, monkeypatch):
    np.savez(tmp_path / "mnist.npz", **images)
    monkeypatch.setenv("AIMC_DATA", str(tmp_path))
    assert is_at_hand("smnist-rows") and not is_at_hand("fsdd")
    pixels = load_task("smnist").x_test.reshape(4, 28, 28)
    np.testing.assert_array_equal(load_task("smnist-rows").x_test, pixels)
    small = load_task("smnist-14x14").x_test.reshape(4, 14, 14)
    np.testing.assert_allclose(small[:, 3, 5], pixels[:, 6:8, 10:12].mean(axis=(1, 2)), rtol=1e-6)


def test_damaged_files_are_refused(images, tmp_path):
    images["x_test"] = images["x_test"][:, :27]
    np.savez(tmp_path / "mnist.npz", **images)
    with pytest.raises(InputError, match=r"give uint8 images|Give uint8 images"):
        load_task("smnist", tmp_path)
    (tmp_path / "mnist.npz").write_bytes(b"PK none")
    with pytest.raises(InputError, match="cannot be read"):
        load_task("smnist", tmp_path)


def test_absent_data_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("AIMC_DATA", raising=False)
    with pytest.raises(UsageError, match=r"nor the four IDX files"):
        load_task("smnist", tmp_path)
    with pytest.raises(UsageError, match=r"(?i)nor a folder recordings. Git clone"):
        load_task("fsdd", tmp_path)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(UsageError, match=r"(?i)git clone .* and set AIMC_DATA"):
        load_task("fsdd")
    with pytest.raises(UsageError, match=r"aimc-sim\[data\]"):
        load_task("smnist")


def speak(folder):
    """Leave two recordings of a tone, one for training and one for the test."""
    folder.mkdir(parents=True)
    tone = (10_000 * np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)).astype("<i2")
    for index in (4, 5):
        with wave.open(str(folder / f"7_theo_{index}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(tone.tobytes())


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder, and the address under which a server on this machine offers it."""
    pytest.importorskip("pooch", reason="pooch is not installed; the extra 'data' has it")
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.delenv("AIMC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{found.server_address[1]}/"
        found.shutdown()
        thread.join()


def test_images_are_downloaded_once_and_another_checksum_is_refused(images, server, monkeypatch):
    folder, address = server
    sums = {}
    for part, stem in datasets._PARTS.items():
        packed = gzip.compress(idx(images[part]))
        (folder / f"{stem}.gz").write_bytes(packed)
        sums[part] = hashlib.md5(packed).hexdigest()
    monkeypatch.setitem(datasets._SOURCES, "mnist", (address, {**sums, "y_test": "0" * 32}))
    with pytest.raises(UsageError, match=r"(?s)t10k-labels.*cannot be had .*(hash|MD5)") as caught:
        load_task("smnist")
    assert "set AIMC_DATA" in caught.value.do
    monkeypatch.setitem(datasets._SOURCES, "mnist", (address, sums))
    np.testing.assert_array_equal(load_task("smnist").y_test, images["y_test"])
    for file in folder.iterdir():
        file.unlink()
    np.testing.assert_array_equal(load_task("smnist").y_train, images["y_train"])  # of the cache


def test_spoken_digits_are_downloaded_and_held_to_the_sum_of_their_samples(
    server, tmp_path, monkeypatch
):
    folder, address = server
    inside = tmp_path / "free-spoken-digit-dataset-26eb9aa" / "recordings"
    speak(inside)
    with zipfile.ZipFile(folder / "fsdd.zip", "w") as archive:
        for path in inside.iterdir():
            archive.write(path, path.relative_to(tmp_path))
    monkeypatch.setattr(datasets, "_FSDD_ARCHIVE", f"{address}fsdd.zip")
    with pytest.raises(UsageError, match=r"fsdd.zip gives other recordings. Git clone"):
        load_task("fsdd")
    monkeypatch.setattr(datasets, "_FSDD_SUM", datasets._sum_of(datasets.load_fsdd(inside.parent)))
    found, expected = load_task("fsdd"), load_task("fsdd", inside.parent)
    np.testing.assert_array_equal(found.x_train, expected.x_train)
    assert found.y_test.tolist() == [7]


def test_spoken_digits_are_read_from_the_published_folder(tmp_path):
    speak(tmp_path / "recordings")
    task = load_task("fsdd", tmp_path)
    assert task.x_train.shape == task.x_test.shape == (1, 64, 32)
    assert task.y_test.tolist() == [7]
    # 1 kHz is 1000 mel of 2146 up to 4 kHz, in band 33 * 1000/2146 - 1; silence after half a second
    assert task.x_test[0, 10].argmax() in (14, 15)
    np.testing.assert_allclose(task.x_test[0, 40:], 0.0, atol=1e-6)


def test_reference_copies_have_the_published_sizes(shared):
    task = load_task("smnist", shared / "data" / "datasets")
    assert len(task.y_train) == 60_000 and len(task.y_test) == 10_000
    spoken = load_task("fsdd", shared / "data" / "datasets")
    assert len(spoken.y_train) == 2_700 and len(spoken.y_test) == 300
    clips = datasets.load_fsdd(shared / "data" / "datasets")
    assert datasets._sum_of(clips) == datasets._FSDD_SUM
