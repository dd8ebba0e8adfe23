"""`appo export`: a trained policy as files that need none of this package.

    appo export RUN [--output DIR] [--actor] [experiment.name=NAME] [experiment.output_dir=DIR]

writes `policy.onnx`, `policy.pt` and `policy.json` into `<run>/exported`, where Isaac Lab's users
look; with `--actor` the checkpoint without critic and optimizer, a sixth of its size, which
`appo eval` plays. RUN is a run directory, a checkpoint file, `latest` or `best`. Runs in one
process, builds no env.
"""

import sys
from pathlib import Path

from isaac_hydra_ext.cli.main import run_reporting_errors
from isaac_hydra_ext.cli.named_checkpoint import add_checkpoint_arguments, find, say_found
from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.registry import facts_of
from isaac_hydra_ext.export.export import CHECKED_INPUTS, FILES, export, export_actor


def main() -> None:
    """Run the command line."""
    parser = CommandParser(
        prog="appo export",
        description="Write a trained policy as ONNX and TorchScript, with a description in JSON.",
        epilog="Raw observations in, the env's actions out: normaliser, squashing and clipping are "
        "inside. Nothing is written unless both files agree with the policy on 100 inputs, to 1e-5 "
        "(of the largest output, where that is above 1). "
        "Needs: pip install 'isaac-hydra-ext[export]'",
    )
    add_checkpoint_arguments(parser)
    parser.add_argument("--output", type=Path, help="directory (default: RUN/exported)")
    parser.add_argument(
        "--actor",
        action="store_true",
        help="instead write model_N.safetensors without critic and optimizer, for appo eval alone",
    )
    arguments = parser.parse_intermixed_args()

    def task() -> None:
        checkpoint = say_found(find(arguments.run, arguments.settings, "export"))
        if arguments.actor:
            print(f"wrote {export_actor(checkpoint, arguments.output)}")
            return
        done = export(checkpoint, arguments.output)
        print(f"checkpoint: {checkpoint.path} (iteration {checkpoint.meta['iteration']})")
        print(f"checked: {CHECKED_INPUTS} inputs, largest difference {done.max_difference:.1e}")
        for name in FILES:
            print(f"wrote {done.directory / name}")
        if facts_of(EnvConfig(kind=checkpoint.meta["config"]["env"]["kind"])).is_pure_gym:
            print(f"play it without torch: appo run-onnx {done.directory}")

    sys.exit(run_reporting_errors(task))


if __name__ == "__main__":
    main()
