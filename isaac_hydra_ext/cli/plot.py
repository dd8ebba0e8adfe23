"""`appo plot`: learning curves as pictures. Runs in one process; needs matplotlib.

    appo plot RUN [RUN ...] [--x samples|seconds|iterations] [--tag TAG] [--output STEM]

A RUN is a run directory, a directory of them, a checkpoint, `latest` or `best`.
"""

import sys
from pathlib import Path

from isaac_hydra_ext.cli.main import run_reporting_errors
from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.config.checks import RESUME_WORDS
from isaac_hydra_ext.reports.curves import AXES, RETURN, combine, find_runs
from isaac_hydra_ext.reports.plot import STEM, draw, place_of, read_runs


def main() -> None:
    """Run the command line."""
    parser = CommandParser(
        prog="appo plot",
        description="Draw learning curves as PNG and SVG. Runs that differ in their seed alone are "
        "one curve: their mean, and a band from the lowest to the highest.",
        epilog="Needs: pip install 'isaac-hydra-ext[plot]'",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run directory, a directory of them, a checkpoint, latest or best",
    )
    parser.add_argument("--x", choices=list(AXES), default="samples", help="default: samples")
    parser.add_argument("--tag", default=RETURN, help=f"as in TensorBoard (default: {RETURN})")
    parser.add_argument(
        "--output",
        type=Path,
        help=f"path without extension (default: {STEM}, in the run's directory if it is one)",
    )
    arguments = parser.parse_args()

    def task() -> None:
        places = [place_of(word) for word in arguments.runs]
        for word, place in zip(arguments.runs, places, strict=True):
            if word in RESUME_WORDS:
                print(f"{word}: {place}", file=sys.stderr)
        runs = find_runs(places)
        curves, notes = read_runs(runs, arguments.tag, arguments.x)
        for note in notes:
            print(f"passed over: {note}", file=sys.stderr)
        stem = arguments.output or (runs[0] / STEM if len(runs) == 1 else Path(STEM))
        for path in draw(combine(curves), arguments.x, arguments.tag, stem):
            print(f"wrote {path}")

    sys.exit(run_reporting_errors(task))


if __name__ == "__main__":
    main()
