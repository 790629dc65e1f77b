"""The `aimc-sim` command: its commands, and how errors reach the user.

Only typer is imported here, so that `aimc-sim --help` answers at once; a command imports what
it needs when it runs.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
import typer.core

from aimc_sim import __version__
from aimc_sim.cli.calibrate import calibrate
from aimc_sim.cli.device import device
from aimc_sim.cli.map import map_model
from aimc_sim.cli.options import ARGUMENTS
from aimc_sim.cli.presets import presets
from aimc_sim.cli.prune import prune
from aimc_sim.cli.run import run
from aimc_sim.cli.sweep import sweep
from aimc_sim.cli.train import quantize, train
from aimc_sim.errors import AimcError, CapacityError

INTERRUPTED = 130
# \b keeps the lines as they are
FIRST_STEPS = """\b
Start here:
  aimc-sim run MODEL           what a chip does to a model, over time
  aimc-sim presets             the chips there are
  aimc-sim map MODEL           tiles and costs, without simulating
  aimc-sim COMMAND --help      what a command takes
A model comes with the sources: examples/models/s4d-digits.pt
"""


class Commands(typer.core.TyperGroup):
    """The commands, with errors turned into three lines on stderr and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the arguments as they were typed, for the record of a run."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a user's mistake ends in its exit code, without a traceback."""
        try:
            return super().invoke(ctx)
        except AimcError as error:
            _show(error)
            raise typer.Exit(error.exit_code) from None
        except MemoryError as error:
            do = "use fewer chips, or --limit fewer sequences"
            _show(CapacityError("run the command", f"the memory is used up ({error})", do))
            raise typer.Exit(CapacityError.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("interrupted: no file is left half-written", err=True)
            raise typer.Exit(INTERRUPTED) from None


def _show(error: AimcError) -> None:
    lines = ["error", f"  asked: {error.asked}", f"  found: {error.found}", f"  to do: {error.do}"]
    typer.echo("\n".join(lines), err=True)


app = typer.Typer(
    name="aimc-sim",
    cls=Commands,
    help="Simulate trained state-space models on analog in-memory computing chips.",
    no_args_is_help=True,
    epilog=FIRST_STEPS,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run)
app.command("map")(map_model)
app.command("presets")(presets)
app.command("device")(device)
app.command("calibrate")(calibrate)
app.command("train")(train)
app.command("quantize")(quantize)
app.command("sweep")(sweep)
app.command("prune")(prune)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"aimc-sim {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Simulate trained state-space models on analog in-memory computing chips."""


def main() -> None:
    """Run the command line (the entry point `aimc-sim`)."""
    app(prog_name="aimc-sim")


if __name__ == "__main__":
    main()
