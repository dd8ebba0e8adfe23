"""`appo run-onnx`: an exported policy in its environment, with ONNX Runtime and without torch.

    appo run-onnx RUN/exported [--episodes 32] [--seed 0] [--json]

Runs in one process of its own. Nothing here, or imported from here, imports torch.
"""

import sys
from pathlib import Path

from isaac_hydra_ext.checkpoints.exported import OnnxPolicy
from isaac_hydra_ext.cli.main import run_reporting_errors
from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.cli.playing import add_playing_arguments, show
from isaac_hydra_ext.export.run_onnx import run_onnx


def main() -> None:
    """Run the command line."""
    parser = CommandParser(
        prog="appo run-onnx",
        description="Play an exported policy in its Gymnasium env: ONNX Runtime, no torch.",
    )
    parser.add_argument("directory", type=Path, help="what appo export wrote: RUN/exported")
    add_playing_arguments(parser)
    arguments = parser.parse_args()

    def task() -> None:
        result = run_onnx(OnnxPolicy(arguments.directory), arguments.episodes, arguments.seed)
        show(result, arguments.json, "ONNX, no torch")

    sys.exit(run_reporting_errors(task))


if __name__ == "__main__":
    main()
