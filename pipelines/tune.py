"""tune.py: give every run of the experiment in params.yaml, or those named, the same number of trials, and conf/ the best
of each.

Run again, it goes on where it was; `make tune E=NAME` chooses the experiment and makes its data sets first."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import config, errors, tune  # noqa: E402


@errors.main
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="names of runs (default: all that have a choice)")
    parser.add_argument("--jobs", type=int, help="trials side by side (default: as many as there are cores for)")
    parser.add_argument("--trial", help=argparse.SUPPRESS)  # JSON: this process is one of them
    args = parser.parse_args()
    params = config.load()
    config.check(params)
    if args.trial:
        print(json.dumps(trial(params, **json.loads(args.trial))))
        return
    folder = tune.TRIED / params.experiment
    folder.mkdir(parents=True, exist_ok=True)
    with process.locked(folder / "lock", 5, f"{params.experiment} is being tuned"):
        table = tune.Table(params, only=args.runs)
        threads = max(run.train.threads for run in table.runs.values())
        side_by_side(table, folder, max(1, args.jobs or process.cores() // threads))
        changed = tune.settle(table)
    print(f"the trials are at {table.file.with_suffix('.md')}; runs changed in conf/: {changed}")


def side_by_side(table, folder, jobs):
    """Run what trials are left, `jobs` at a time, and put what each finds into the table."""
    running = {}
    table.write()
    try:
        while True:
            for place, given in table.left():
                if len(running) < jobs and place not in running:
                    running[place] = start(given, folder)
            if not running:
                return
            while all(child.poll() is None for _, child, _ in running.values()):
                time.sleep(0.1)
            for place in [place for place, (_, child, _) in running.items() if child.poll() is not None]:
                given, child, log = running.pop(place)
                found = answer(given, child, log)
                table.add(found)
                print(f"{given['name']}, trial {given['number']} of {tune.TRIALS}, lr {given['lr']:g}: "
                      f"{tune.found(found)} ({table.done()} of {tune.TRIALS * len(table.only)})", flush=True)
    finally:
        for _, child, _ in running.values():
            child.kill()


def start(given, folder):
    """A process of this script for one trial -> what it was given, itself, where it says what goes on."""
    log = folder / f"{given['name']}-trial-{given['number']}.log"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # as accelerate has it: train.threads says how many
    with open(log, "w") as file:
        child = subprocess.Popen([sys.executable, __file__, "--trial", json.dumps(given)], stdout=subprocess.PIPE,
                                 stderr=file, text=True, env=env)
    return given, child, log


def answer(given, child, log):
    """What a trial that has ended found; UserError where it was not the recipe that ended it."""
    lines = child.stdout.read().splitlines()
    if child.returncode:
        said = (log.read_text(errors="replace").splitlines() or [f"exit status {child.returncode}"])[-1]
        raise errors.UserError(f"{given['name']}, trial {given['number']}: {said.removeprefix('error: ')} (in {log}); "
                               "what is done stays done, and the same command goes on")
    found = json.loads(lines[-1])
    if found["key"] != given["key"]:
        raise errors.UserError("params.yaml, the data or the code changed meanwhile: run the same command again")
    return found


def trial(params, name, number, lr, args, key):
    """Train one seed with a recipe and judge it on val -> the trial with what it found."""
    from selfsup import encoder, evals, tracking
    from selfsup.training import loop, measure, setup

    given = {"lr": lr, "args": args}
    run = tune.with_recipe(config.run(params, name), given)
    given["key"] = tune.key(params, run)
    run, seed = run.model_copy(update={"name": f"{name}-trial-{number}"}), run.seeds[0]
    accelerator = setup.accelerator(run.train)
    shards, out = config.compose.SHARDS / run.data, Path(tune.TRIED, params.experiment, run.name, str(seed))
    tracker = tracking.Tracker(params.model_copy(update={"experiment": f"{params.experiment}-tune"}), run, seed, out)
    try:
        loop.pretrain(run, seed, accelerator, shards, out, tracker=tracker)
    except measure.Diverged as error:
        return {**given, "failed": str(error).partition(";")[0]}
    net = encoder.load(out).to(accelerator.device)
    budget = {"labels": run.labels, "val_labels": run.val_labels, "seed": seed}
    data = evals.Data(shards, **budget, reader=run.train.reader, columns=(net.takes, "label"))
    found = {judge: evals.judge(judge, net, data, **tune.options(params, judge)) for judge in tune.JUDGES}
    found = {judge: value["val_accuracy"] for judge, value in found.items()}
    tracker.close(**{f"{judge}_val_accuracy": value for judge, value in found.items()}, score=tune.score(found))
    return {**given, **found}


if __name__ == "__main__":
    main()
