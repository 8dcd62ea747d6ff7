"""Launchers of trainers, Accelerate's or PyTorch's: what they are asked for, and how they end.

`python -m selfsup.launch -m MODULE …` runs one, as pipelines/python does for a stage.
"""

import logging
import os
import runpy
import signal
import subprocess
import sys

from . import errors, process
from .errors import UserError


@errors.main
def run(module, words):
    """Run a module that launches trainers, as `python -m` does. They say all there is to say: how they ended is its
    exit status, without a traceback, and Ctrl-C is for them.

    Where `accelerate launch` would start one trainer and tell it nothing, that is forked here: its launcher then imports
    neither torch nor accelerate, which take seconds."""
    light = module.startswith("accelerate.") and words[0].endswith(".py") and not config_file()
    trainer = os.fork() if light else 0  # before there is anything that a fork would have to put right
    process.guard(process.GRACE + 0.3)
    if signal.getsignal(signal.SIGINT) == process.interrupted:  # in the background it is ignored
        signal.signal(signal.SIGINT, _interrupted)
    if trainer:
        _end(os.waitstatus_to_exitcode(os.waitpid(trainer, 0)[1]))
    check_accelerate_config()
    devices = _devices() if light else 0
    if light and devices < 2:
        if signal.getsignal(signal.SIGINT) == _interrupted:
            signal.signal(signal.SIGINT, process.interrupted)
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
        return
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").disabled = True  # it says that they ended
    sys.argv = [module, *(chosen(devices) if light else ()), *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except subprocess.CalledProcessError as error:
        _end(error.returncode)
    except Exception as error:  # torchrun's are known by what they have, since torch takes a second to import
        if getattr(error, "sigval", None) == signal.SIGINT:  # it has a handler of its own
            sys.exit(process.INTERRUPTED)
        if hasattr(error, "get_first_failure"):
            _end(error.get_first_failure()[1].exitcode)
        raise


def chosen(devices):
    """What `accelerate launch` takes where nobody has said anything: said, it does not warn of it in six lines a stage."""
    return ["--multi_gpu", "--num_processes", str(devices), "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


def config_file():
    """The file that `accelerate config` wrote, or None: accelerate's own rule, without importing it."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.path.expanduser(os.environ.get("HF_HOME", os.path.join(caches, "huggingface")))
    paths = (os.path.join(home, "accelerate", f"default_config.{ending}") for ending in ("yaml", "json"))
    return next((path for path in paths if os.path.isfile(path)), None)


def _devices():
    os.environ["OMP_NUM_THREADS"] = "1"  # as accelerate has it, before torch is imported: train.threads says how many
    import torch

    return torch.cuda.device_count()


def _end(status):
    """Exit as a trainer did, negative where a signal ended it."""
    if status < 0:
        print(f"error: the training was ended by {signal.Signals(-status).name}, from outside or for want of memory",
              file=sys.stderr)
    sys.exit(status if status >= 0 else 128 - status)


def _interrupted(number, frame):
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # there is no trainer yet
        process.interrupted(number, frame)


def check_accelerate_config():
    """Raise UserError if `accelerate config` was once asked for what no training here can do."""
    path = config_file()
    if path is None:
        return
    try:
        from accelerate.commands.config.config_args import load_config_from_file

        found = load_config_from_file(None).to_dict()
        kind, precision, dynamo = found["distributed_type"], found.get("mixed_precision"), found.get("dynamo_config")
        plain = kind == "NO" or kind.startswith("MULTI_")
        asked = [kind] * (not plain) + [precision] * (precision == "fp8") + ["torch.compile"] * bool(dynamo)
        reason = f"asks for {' and '.join(asked)}, which trainings here do not use" if asked else None
    except Exception as error:  # YAML's, and whatever accelerate makes of what it does not know
        reason = f"cannot be used ({' '.join(str(error).split())[:200]})"
    if reason:
        raise UserError(f"{path} {reason}: it may be another project's; run `accelerate config` anew, "
                        "or delete the file, and the machine decides")


def check_process_count(actual):
    """`accelerate launch` starts a single process on CPU whatever number it was asked for: say so instead.

    Raises UserError if torchrun, the launcher's command line or `accelerate config` asked for more than `actual`.
    """
    words = [w for word in process.command(os.getppid()) for w in word.split("=")]
    given = (words[i + 1] for i, w in enumerate(words[:-1]) if w in ("--num_processes", "--num-processes"))
    asked = os.environ.get("WORLD_SIZE") or next(given, None)
    if asked is None and any("accelerate" in word for word in words) and config_file():
        from accelerate.commands.config.config_args import load_config_from_file

        asked = load_config_from_file(None).num_processes
    if asked is not None and int(asked) > actual:
        raise UserError(
            f"{asked} processes were asked for but {actual} started: accelerate launch runs one process on CPU; "
            f"use `torchrun --nproc_per_node {asked} pipelines/pretrain.py RUN`"
        )


if __name__ == "__main__":
    run(sys.argv[2], sys.argv[3:])
