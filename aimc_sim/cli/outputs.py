"""Where results go: stdout, stderr and files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from aimc_sim.errors import AimcError, CapacityError, DefectError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

Writer = Callable[[Path], Any]
_TEXT_WIDTH = 100  # of table.txt


@dataclass(frozen=True)
class Outputs:
    """What a command is to write.

    json : file, "-" for stdout, or None. files : option -> file or None. out : a folder.
    force : files that exist, also in `out`, may be replaced.
    """

    json: str | None = None
    files: Mapping[str, Path | None] | None = None
    out: Path | None = None
    force: bool = False

    def check(self, inputs: Sequence[Path] = ()) -> None:
        """Refuse, before anything runs, what could not be written after it.

        inputs : files that the command reads and must not overwrite.
        """
        targets = {option: path for option, path in (self.files or {}).items() if path is not None}
        if self.json not in (None, "-"):
            targets["--json"] = Path(str(self.json))
        if self.force and self.out is None and not targets:
            raise UsageError(
                "use --force", "there is no --out or file to replace", "add one or drop --force"
            )
        taken = {path.resolve(): "an input" for path in inputs}
        for option, path in targets.items():
            asked = f"write {option} {path}"
            if path.is_dir():
                raise UsageError(asked, "that is a folder", "give the name of a file")
            _check_folder(asked, path.parent)
            if path.resolve() in taken:
                raise UsageError(asked, f"that file is {taken[path.resolve()]}", "choose another")
            if path.exists() and not self.force:
                raise UsageError(asked, "the file exists", "choose another or add --force")
            taken[path.resolve()] = f"what {option} writes"
        if self.out is not None:
            self._check_out(self.out)

    def _check_out(self, out: Path) -> None:
        asked = f"write results to {out}"
        if out.is_dir():
            if not self.force:
                raise UsageError(asked, "the folder exists", "choose another or add --force")
            if not os.access(out, os.W_OK):
                raise UsageError(asked, "the folder is not writable", "choose another")
        elif os.path.lexists(out):
            raise UsageError(asked, "that is not a folder", "choose another name")
        else:
            _check_folder(asked, out.parent)

    def show(self, report: RenderableType, to_json: str) -> None:
        """Print the report, and the JSON where asked: with --json - stdout holds it alone."""
        from rich.console import Console
        from rich.text import Text

        stream = sys.stderr if self.json == "-" else sys.stdout
        whole = isinstance(report, Text)  # plain lines stay as they are, tables fit the width
        Console(file=stream, highlight=False).print(report, soft_wrap=whole)
        if self.json == "-":
            sys.stdout.write(to_json)
        elif self.json is not None:
            write_whole(Path(self.json), lambda path: path.write_text(to_json, "utf-8"))

    def write_folder(self, writers: Mapping[str, Writer], drawn: Sequence[str] = ()) -> None:
        """Write the files of --out: all are made aside first, then moved into place.

        drawn : patterns of what `draw` adds. What an earlier run left of it goes, so that no
        picture of other results stays.
        """
        if self.out is None:
            return
        parent = self.out.parent
        aside = Path(tempfile.mkdtemp(prefix=f".{self.out.name}.", dir=parent))
        try:
            for name, write in writers.items():
                write(aside / name)
            if self.out.is_dir():
                for name in writers:
                    os.replace(aside / name, self.out / name)
                for earlier in (path for pattern in drawn for path in self.out.glob(pattern)):
                    earlier.unlink()
            else:
                aside.chmod(0o777 & ~_umask())
                aside.rename(self.out)
        except OSError as error:
            raise UsageError(
                f"write results to {self.out}",
                f"it failed ({error})",
                "check the disk and the folder",
            ) from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)


    def draw(self, writers: Mapping[str, Writer]) -> None:
        """Add pictures and pages to the folder of --out, each whole or not at all.

        They come last, behind `write_folder` and `show`: what cannot be drawn costs itself, and
        nothing that a run has found. Raises one error that names all that failed.
        """
        if self.out is None:
            return
        failed: dict[str, Exception] = {}
        for name, write in writers.items():
            try:
                write_whole(self.out / name, write)
            except Exception as error:  # whatever it is, the rest is still drawn
                failed[name] = error
        if failed:
            raise _undrawn(self.out, failed)


def _undrawn(out: Path, failed: Mapping[str, Exception]) -> AimcError:
    """Return what to say of pictures and pages that could not be drawn; the first reason counts."""
    asked, first = f"draw {', '.join(failed)} in {out}", next(iter(failed.values()))
    reasons = "; ".join(dict.fromkeys(map(_reason, failed.values())))
    found = f"{reasons}; the other files are whole"
    if isinstance(first, AimcError):
        return type(first)(asked, found, first.do)
    if isinstance(first, MemoryError):
        return CapacityError(asked, found, "use fewer chips, or a machine with more memory")
    return DefectError(asked, found, "report this defect with the command and these lines")


def _reason(error: Exception) -> str:
    if isinstance(error, AimcError):
        return error.found
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    where = traceback.extract_tb(error.__traceback__)
    return f"{said}, {Path(where[-1].filename).name} line {where[-1].lineno}" if where else said


def write_whole(path: Path, write: Writer) -> None:
    """Write a file aside and move it into place; nothing is left where that fails."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        write(aside)
        aside.chmod(0o666 & ~_umask())
        os.replace(aside, path)
    except OSError as error:
        raise UsageError(
            f"write {path}", f"it failed ({error})", "check the disk and the folder"
        ) from None
    finally:
        aside.unlink(missing_ok=True)


def as_text(report: RenderableType) -> str:
    """Return a report as plain text."""
    import io

    from rich.console import Console

    stream: IO[str] = io.StringIO()
    Console(file=stream, width=_TEXT_WIDTH, highlight=False, color_system=None).print(report)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"  # type: ignore[attr-defined]


def _check_folder(asked: str, folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(asked, f"there is no folder {folder}", "make it first")
    if not os.access(folder, os.W_OK):
        raise UsageError(asked, f"the folder {folder} is not writable", "choose another")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class ProgressBar:
    """A bar on stderr, only on a terminal and only for what takes more than a second."""

    def __init__(self, quiet: bool) -> None:
        import time

        self._shown = not quiet and sys.stderr.isatty()
        self._clock, self._begun = time.monotonic, time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` sequences are through."""
        if not self._shown or (self._bar is None and self._clock() - self._begun < 1.0):
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(file=sys.stderr), transient=True)
            self._bar.add_task("sequences", total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)
