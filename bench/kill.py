"""kill -9 at 20 random moments of a pretraining, each time finished by `dvc repro`: how often are the bytes the same?

Works in a scratch clone on the experiment `tiny` with a longer budget. The trainer and the dvc above it are killed in turns.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

from selfsup import errors

TRIALS, RUN = 20, "tiny-simclr"
STAGE = f"pretrain@{RUN}"


@errors.main
def main():
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch, "clone")
        subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = {**os.environ, "PATH": path, "SELFSUP_TRACKING": "off"}

        def dvc(*words):
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            return subprocess.Popen(["dvc", "repro", "--single-item", *words], cwd=clone, env=env, **quiet)

        subprocess.run([sys.executable, "pipelines/experiment.py", "tiny"], cwd=clone, env=env, check=True)
        params = yaml.safe_load((clone / "params.yaml").read_text())
        params["train"] |= {"images": 25600, "checkpoint_every": 0.2, "threads": 1}
        (clone / "params.yaml").write_text(yaml.safe_dump(params))
        assert dvc("shard@tiny").wait() == 0
        assert dvc("--force", "--no-run-cache", STAGE).wait() == 0
        expected, duration = digest(clone), cost(clone)["seconds"]
        print(f"uninterrupted: {duration:.1f} s of training, sha256 {expected[:12]}", flush=True)
        equal, random_moments = 0, random.Random(0)
        for trial in range(TRIALS):
            for made in ("data/runs", "data/encoders", "data/results"):
                shutil.rmtree(clone / made, ignore_errors=True)
            process = dvc("--force", "--no-run-cache", STAGE)
            trainer = wait_for_checkpoints(clone, process)
            time.sleep(random_moments.random() * duration * 0.9)
            victim = trainer if trial % 2 else process.pid
            survived = process.poll() is not None
            if not survived:
                os.kill(victim, signal.SIGKILL)
            process.wait()
            assert dvc("--no-run-cache", STAGE).wait() == 0
            same = digest(clone) == expected
            equal += same
            what = "had ended" if survived else f"killed the {'trainer' if trial % 2 else 'dvc process'}"
            print(f"{trial + 1:2d}: {what}, resumed: {'the same bytes' if same else 'OTHER BYTES'}", flush=True)
    print(json.dumps({"bench": "kill", "equal": equal, "of": TRIALS}))


def wait_for_checkpoints(clone, process):
    """Process id of the trainer, once its run's folder is there: from then on it trains."""
    while not list(clone.glob(f"data/runs/{RUN}-*/lock")):
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    return max(child.pid for child in children if "pipelines/pretrain.py" in child.cmdline())


def digest(clone):
    """sha256 over the encoder folder, names and bytes."""
    found = hashlib.sha256()
    folder = clone / f"data/encoders/tiny/{RUN}"
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            found.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return found.hexdigest()


def cost(clone):
    return json.loads((clone / f"data/results/tiny/{RUN}/cost.json").read_text())["seeds"]["0"]


if __name__ == "__main__":
    main()
