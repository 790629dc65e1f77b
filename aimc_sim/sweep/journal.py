"""The journal of a sweep: what came of every task, on disk before the next one counts.

A text file of lines ``CRC JSON``. Lines are only ever added, each synced to the disk, so that a
run killed at any moment leaves at most one torn line, the last. A line that is not whole, in the
middle of the file too, is left out and named when the file is opened again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from aimc_sim import __version__
from aimc_sim.errors import AimcError, InputError, UsageError
from aimc_sim.sweep.campaign import Campaign
from aimc_sim.sweep.tasks import Outcome

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two runs from the same journal there
    fcntl = None  # type: ignore[assignment]

SCHEMA = "aimc-sim.sweep/1"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def to_line(record: dict[str, Any]) -> bytes:
    """Return a record as a line with its checksum."""
    text = json.dumps(record, allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def from_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line without its end; None where the line is not whole."""
    check, _, text = line.partition(b" ")
    if len(check) != 8 or check != b"%08x" % zlib.crc32(text):
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


class Journal:
    """Outcomes of a campaign's tasks in a file, one process at a time.

    outcomes : name of a task -> what came of it last.
    """

    def __init__(self, path: Path, campaign: Campaign) -> None:
        """Open the journal of a campaign, or begin it where there is none.

        Warns of what a damaged file has lost. Raises UsageError where it cannot be written or
        another run writes it, InputError where it belongs to another sweep or is no journal.
        """
        self.path = path
        self._file = -1
        self.outcomes: dict[str, Outcome] = {}
        self._asked = f"keep results in {path}"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._lock()
            self._take_up(campaign)
        except OSError as error:
            self.close()
            raise self._refused(error) from None
        except AimcError:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, for another run to take it up."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Write outcomes and return when the disk has them.

        Raises UsageError where the disk is full; what was written before stays whole.
        """
        self._append(b"".join(to_line(outcome.record()) for outcome in outcomes))
        for outcome in outcomes:
            self.outcomes[outcome.task] = outcome

    def _append(self, data: bytes) -> None:
        end = os.fstat(self._file).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            # where that fails too, the torn line is left out when the file is opened again
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, end)
            raise self._refused(error) from None

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # another run may have put a mended file in the place of the one just opened
            ours = os.path.samestat(os.fstat(self._file), self.path.stat())
        except BlockingIOError:
            ours = False
        if not ours:
            raise UsageError(
                self._asked, "another run of the sweep is writing there",
                "wait for it, or choose another file with --out",
            )

    def _take_up(self, campaign: Campaign) -> None:
        data = _read_all(self._file)
        *lines, torn = data.split(b"\n")
        records = [from_line(line) for line in lines]
        whole = [record for record in records if record is not None]
        begun = self._header(campaign).startswith(data)  # nothing yet, or a torn first line
        if not whole and not begun:
            raise InputError(
                self._asked, "that file is no journal of a sweep, or nothing in it is whole",
                "move it away or choose another file with --out",
            )
        header = whole[0] if whole and "schema" in whole[0] else None
        if header is not None and header["schema"] != SCHEMA:
            raise InputError(
                self._asked, f"its schema is {header['schema']}, this version reads {SCHEMA}",
                "install the version that wrote it, or choose another file with --out",
            )
        found = [Outcome.from_record(record) for record in whole if "task" in record]
        self.outcomes = {outcome.task: outcome for outcome in found}
        self._check_owner(header, campaign)
        n_broken = len(lines) - len(whole) + bool(torn)
        if n_broken:
            self._rewrite(b"".join(map(to_line, whole)) if header else (
                self._header(campaign) + b"".join(map(to_line, whole))
            ))
            warnings.warn(
                f"{self.path} was damaged: {len(found)} results are whole and kept, "
                f"{n_broken} broken line(s) of {len(data)} bytes were left out; "
                "their tasks run again",
                stacklevel=4,
            )
        elif not data:
            self._append(self._header(campaign))
            _sync_folder(self.path.parent)

    def _header(self, campaign: Campaign) -> bytes:
        return to_line(
            {
                "schema": SCHEMA, "version": __version__, "sweep": campaign.name,
                "fingerprint": campaign.fingerprint,
            }
        )

    def _check_owner(self, header: dict[str, Any] | None, campaign: Campaign) -> None:
        """Refuse a journal of which no result belongs to the campaign.

        Tasks are named by all that they compute, so results of a sweep that has grown or shrunk
        since stay good.
        """
        if not self.outcomes or (header and header["fingerprint"] == campaign.fingerprint):
            return
        if self.outcomes.keys() & {task.name for task in campaign.tasks}:
            return
        whose = "another sweep"
        if header is not None:
            whose += f", '{header['sweep']}' of aimc-sim {header['version']}"
        raise InputError(
            self._asked,
            f"it holds {len(self.outcomes)} results of {whose}: model, data, chip or version "
            "differ in every task",
            "choose another file with --out, or move that one away",
        )

    def _rewrite(self, data: bytes) -> None:
        """Put whole lines in the place of a damaged file, which is there until they are on disk."""
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with aside.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, self.path)
        finally:
            aside.unlink(missing_ok=True)
        _sync_folder(self.path.parent)
        os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND)
        self._lock()

    def _refused(self, error: OSError) -> AimcError:
        if error.errno in _FULL:
            return UsageError(
                self._asked,
                f"the disk is full ({error.strerror}); {len(self.outcomes)} results are there",
                "free some space and start again: what is there is not computed again",
            )
        return UsageError(
            self._asked, f"the system refuses ({error.strerror or error})",
            "choose a place that can be written",
        )


def _read_all(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    pieces = []
    while piece := os.read(file, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def _sync_folder(folder: Path) -> None:
    """Have the disk know a file's name too; systems that cannot are left alone."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
