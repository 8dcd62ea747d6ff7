"""evaluate.py PROTOCOL KEY: judge the encoders of a run, one a seed, and write their PROTOCOL.json."""

import argparse
import inspect
import json
from pathlib import Path

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

import torch  # noqa: E402

import selfsup  # noqa: E402
from selfsup import config, errors, evals  # noqa: E402
from selfsup.core import files  # noqa: E402
from selfsup.data.columns import JUDGES  # noqa: E402


@errors.main
def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocol", help="a key of `protocols` in params.yaml")
    parser.add_argument("key", help="a run, or RUN--DATA for a data set that is not the run's own")
    args = parser.parse_args(words)
    params, protocol = config.load(), args.protocol
    evals.load(protocol)
    item = planned(params, protocol, args.key)
    run, shards = config.run(params, item["run"]), Path("data/shards") / item["data"]
    torch.set_num_threads(run.train.threads)
    result = {"run": item["run"], "protocol": protocol}
    if item["data"] != run.data:
        result["data"] = item["data"]
    lacking = evals.unfit(protocol, evals.Data(shards).card)
    if not lacking:
        seeds = {str(seed): judge(protocol, run, seed, shards, item) for seed in run.seeds}
        result |= {**evals.summarise(seeds), "seeds": seeds}
    else:
        result["skipped"] = lacking
        print(f"{protocol} of {args.key} is skipped: {lacking}")
    write(Path(item["results"]) / f"{protocol}.json", result)


def planned(params, protocol, key):
    """Who is judged on what: an item of the plan."""
    items = params.plan.get(protocol, {})
    if key not in items:
        raise errors.UserError(f'protocols.{protocol} judges no "{key}"{errors.nearest(key, items)}')
    return items[key]


def judge(protocol, run, seed, shards, item):
    """The result of one seed's encoder."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module, folder = evals.load(protocol), config.encoders(run.name)
    encoder = selfsup.load(folder, seed)
    there = [part for part in getattr(module, "perhaps", ()) if part in encoder.info["parts"]]
    parts = {part: selfsup.load(folder, seed, part).to(device) for part in (*getattr(module, "parts", ()), *there)}
    parts["encoder"] = encoder.to(device)
    further, labels = getattr(module, "columns", ()), getattr(module, "labels", True)
    further = further(item["options"]) if callable(further) else further
    columns = dict.fromkeys((encoder.takes, *["label"] * labels, *further))
    budget = {"labels": item.get("labels"), "val_labels": item.get("val_labels"), "seed": seed}
    data = evals.Data(shards, needed=labels, **budget, reader=run.train.reader, columns=tuple(columns))
    stored = selfsup.encoder.stored(encoder)
    if stored != data.card["size"]:
        raise errors.UserError(f"{run.name} was trained at {stored} pixels and {shards} has {data.card['size']}: it can be "
                               "judged at its own size alone")
    if encoder.size != stored and not set(further).isdisjoint(JUDGES):
        raise errors.UserError(f"{protocol} asks for places in whole images, of which {run.name} sees the middle: its "
                               f"views have {encoder.size} pixels and {shards} {stored}; leave out its args.size")
    if "source" in inspect.signature(module.choose).parameters:
        parts["source"] = evals.Data(shards.with_name(run.data), **budget, reader=run.train.reader, columns=tuple(columns))
    found = dict(evals.run(protocol, data=data, **parts, **item["options"]))
    print(f"{run.name} seed {seed}: {protocol} on {shards.name} {found['accuracy']:.2f} %")
    return found


def write(path, result):
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
