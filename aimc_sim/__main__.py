"""`python -m aimc_sim`: the command line, where `aimc-sim` itself is not on the path."""

from aimc_sim.cli.main import main

main()
