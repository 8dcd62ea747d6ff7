"""Pretrain the seeds of one run: shards -> data/encoders/<experiment>/<run>/<seed>, and cost.json in the results."""

import argparse
import hashlib
import json
import os
from pathlib import Path

from selfsup import config, errors, process
from selfsup.core import files


@errors.main
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a key of `runs` in the params file")
    parser.add_argument("--params", default="params.yaml", help="the params file (default: %(default)s)")
    args = parser.parse_args()
    params = config.load(args.params)
    run = config.run(params, args.run)
    config.check(params)
    process.die_with_launcher()

    import torch
    from accelerate import Accelerator

    from selfsup import tracking
    from selfsup.training import loop

    # On CPUs alone, Accelerate takes part in what torchrun started only if told that CPUs are meant.
    cpu = "WORLD_SIZE" in os.environ and not torch.cuda.is_available()
    accelerator = Accelerator(cpu=cpu, mixed_precision="bf16" if run.train.precision == "bf16" else "no")
    process.check_process_count(accelerator.num_processes)
    shards, out = Path("data/shards") / run.data, config.encoders(run.name)
    costs = {}
    for seed in run.seeds:
        tracker = tracking.Tracker(params, run, seed, out / str(seed)) if accelerator.is_main_process else None
        judge = watch(params, run, seed, shards)
        costs[str(seed)] = loop.pretrain(run, seed, accelerator, shards, out / str(seed), tracker=tracker, judge=judge)
        if tracker:
            tracker.close()
    if accelerator.is_main_process:
        write_costs(config.results(run.name) / "cost.json", costs, out)


def watch(params, run, seed, shards):
    """What kNN's choosing half says of an encoder in training, by val alone; None where that is not asked for or there
    are no labels. Here, since training knows no judges."""
    from selfsup import evals

    data = evals.Data(shards, reader=run.train.reader, labels=run.labels, seed=seed)
    if not run.train.judge_every or not data.labelled or not data.card["counts"]["val"]:
        return None
    options = config.protocol(params, "knn")
    options.pop("bootstrap")
    return lambda encoder, step: {f"knn_{name}": value for name, value in evals.judge("knn", encoder, data, **options).items()}


def write_costs(path, costs, encoders):
    """What each seed cost. Where the same weights were trained before, the entry of that time stays: git then sees no
    change in a repetition, which differs in seconds alone (the stage's output persists, so that it is still there)."""
    before = json.loads(path.read_text())["seeds"] if path.exists() else {}
    for seed, cost in costs.items():
        with open(encoders / seed / "weights.safetensors", "rb") as file:
            cost["weights"] = hashlib.file_digest(file, "sha256").hexdigest()
        if before.get(seed, {}).get("weights") == cost["weights"]:
            costs[seed] = before[seed]
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps({"seeds": costs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
