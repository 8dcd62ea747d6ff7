"""Pretrain the seeds of one run: shards -> data/encoders/<experiment>/<run>/<seed>, and cost.json in the results."""

import argparse
import json
import os
import sys
from pathlib import Path

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import artefacts, config, errors, launch, provenance  # noqa: E402
from selfsup.core import files  # noqa: E402


@errors.main
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a key of `runs` in the params file")
    parser.add_argument("--params", default="params.yaml", help="the params file (default: %(default)s)")
    args = parser.parse_args()
    params = config.load(args.params)
    run = config.run(params, args.run)
    config.check(params)

    if any(name.startswith("ACCELERATE_") for name in os.environ):  # `accelerate launch` by hand
        launch.check_accelerate_config()
    import torch

    from selfsup import costs, evals, tracking
    from selfsup.training import loop, setup

    # On CPUs alone, Accelerate takes part in what torchrun started only if told that CPUs are meant.
    cpu = "WORLD_SIZE" in os.environ and not torch.cuda.is_available()
    accelerator = setup.accelerator(run.train, cpu)
    launch.check_process_count(accelerator.num_processes)
    shards, out = Path("data/shards") / run.data, config.encoders(run.name)
    spent, file = {}, config.results(run.name) / "cost.json"
    before = artefacts.costs(file)["seeds"] if file.exists() else {}
    card = evals.Data(shards).card
    if accelerator.is_main_process:
        if lacking := evals.lacking(card):
            print(f"{run.name}: nothing will be judged: {lacking}", file=sys.stderr)
        memory, seen = costs.memory(accelerator.device), setup.seen(run, card)
        for said in costs.warn(run, setup.inputs_of(run), seen, memory, accelerator.num_processes):
            print(f"{run.name}: {said}", file=sys.stderr)
    for seed in run.seeds:
        tracker = tracking.Tracker(params, run, seed, out / str(seed)) if accelerator.is_main_process else None
        judge = watch(params, run, seed, shards)
        spent[str(seed)] = loop.pretrain(run, seed, accelerator, shards, out / str(seed), tracker=tracker, judge=judge)
        if tracker:
            tracker.close()
        if accelerator.is_main_process:
            spent[str(seed)] |= {"made": provenance.facts(accelerator.device)}
            spent[str(seed)] = repeated(spent[str(seed)], before.get(str(seed), {}), out / str(seed))
            # After each seed, since the weights' hash vouches for them; entries of seeds to come stay until then.
            last = seed == run.seeds[-1]
            write_costs(file, spent if last else {**before, **spent})


def watch(params, run, seed, shards):
    """What kNN's choosing half says of an encoder in training, by val alone; None where that is not asked for or there
    are no labels. Here, since training knows no judges."""
    from selfsup import evals

    data = evals.Data(shards, reader=run.train.reader, labels=run.labels, val_labels=run.val_labels, seed=seed)
    if not run.train.judge_every or evals.unfit("knn", data.card):
        return None
    options = config.protocol(params, "knn")
    options.pop("bootstrap")
    return lambda encoder, step: {f"knn_{name}": value for name, value in evals.judge("knn", encoder, data, **options).items()}


def repeated(cost, before, encoder):
    """What a seed cost, with the hash of its weights. Where the same weights were trained `before`, the entry of that time
    stays: git then sees no change in a repetition, which differs in seconds and date alone (the stage's output persists,
    so that it is still there)."""
    cost = cost | {"weights": artefacts.sha256(encoder / "weights.safetensors")}
    return before if before.get("weights") == cost["weights"] else cost


def write_costs(path, costs):
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps({"seeds": costs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
