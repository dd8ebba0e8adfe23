"""`appo report RUN`: a run's `report.md`, written anew. Runs in one process of its own."""

import sys

from isaac_hydra_ext.cli.main import run_reporting_errors
from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.reports.curves import find_runs
from isaac_hydra_ext.reports.plot import place_of
from isaac_hydra_ext.reports.report import write_report


def main() -> None:
    """Run the command line."""
    parser = CommandParser(
        prog="appo report",
        description="Write report.md into a run's directory: what came out, the learning curve, "
        "and the command.",
    )
    parser.add_argument("run", help="a run directory, a directory of them (each), or latest")
    arguments = parser.parse_args()

    def task() -> None:
        for run_dir in find_runs([place_of(arguments.run)]):
            print(f"wrote {write_report(run_dir)}")

    sys.exit(run_reporting_errors(task))


if __name__ == "__main__":
    main()
