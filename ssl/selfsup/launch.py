"""Launchers of trainers, Accelerate's or PyTorch's: what they are asked for, and how they end.

`python -m selfsup.launch -m MODULE …` runs one, as pipelines/python does for a stage.
"""

import os
import runpy
import signal
import subprocess
import sys

from . import errors, process
from .errors import UserError


@errors.main
def run(module, words):
    """Run a module that launches trainers, as `python -m` does. They say all there is to say: how they ended is its exit
    status, without a traceback, and Ctrl-C is for them."""
    process.guard(process.GRACE + 0.3)
    signal.signal(signal.SIGINT, _interrupted)
    check_accelerate_config()
    sys.argv = [module, *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:
            name = signal.Signals(-error.returncode).name
            print(f"error: the training was ended by {name}, from outside or for want of memory", file=sys.stderr)
        sys.exit(error.returncode if error.returncode > 0 else 128 - error.returncode)
    except Exception as error:
        if getattr(error, "sigval", None) == signal.SIGINT:  # torchrun's, which has a handler of its own
            sys.exit(process.INTERRUPTED)
        raise


def _interrupted(number, frame):
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # there is no trainer yet
        process.interrupted(number, frame)


def check_accelerate_config():
    """Raise UserError if `accelerate config` was once asked for what no training here can do."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    if not os.path.isfile(default_config_file):
        return
    try:
        found = load_config_from_file(None).to_dict()
        kind, precision, dynamo = found["distributed_type"], found.get("mixed_precision"), found.get("dynamo_config")
        asked = [kind] * (kind != "NO" and not kind.startswith("MULTI_")) + [precision] * (precision == "fp8") + ["torch.compile"] * bool(dynamo)
        reason = f"asks for {' and '.join(asked)}, which trainings here do not use" if asked else None
    except Exception as error:  # YAML's, and whatever accelerate makes of what it does not know
        reason = f"cannot be used ({' '.join(str(error).split())[:200]})"
    if reason:
        raise UserError(f"{default_config_file} {reason}: it may be another project's; run `accelerate config` anew, or "
                        "delete the file, and the machine decides")


def check_process_count(actual):
    """`accelerate launch` starts a single process on CPU whatever number it was asked for: say so instead.

    Raises UserError if torchrun, the launcher's command line or `accelerate config` asked for more than `actual`.
    """
    words = [w for word in process.command(os.getppid()) for w in word.split("=")]
    given = (words[i + 1] for i, w in enumerate(words[:-1]) if w in ("--num_processes", "--num-processes"))
    asked = os.environ.get("WORLD_SIZE") or next(given, None)
    if asked is None and any("accelerate" in word for word in words):
        from accelerate.commands.config.config_args import default_config_file, load_config_from_file

        if os.path.exists(default_config_file):
            asked = load_config_from_file(None).num_processes
    if asked is not None and int(asked) > actual:
        raise UserError(
            f"{asked} processes were asked for but {actual} started: accelerate launch runs one process on CPU; "
            f"use `torchrun --nproc_per_node {asked} pipelines/pretrain.py RUN`"
        )


if __name__ == "__main__":
    run(sys.argv[2], sys.argv[3:])
