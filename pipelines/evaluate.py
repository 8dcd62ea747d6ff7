"""evaluate.py PROTOCOL RUN: judge the encoders of a run, one a seed, and write their PROTOCOL.json."""

import argparse
import json
import os
from pathlib import Path

import torch

import selfsup
from selfsup import config, errors, evals


@errors.main
def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocol", help="a key of `protocols` in params.yaml")
    parser.add_argument("run", help="a key of `runs`")
    args = parser.parse_args(words)
    protocol, name = args.protocol, args.run
    params = config.load()
    run, module = config.run(params, name), evals.load(protocol)
    options = getattr(params.protocols, protocol).model_dump(exclude={"runs"})
    torch.set_num_threads(run.train.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = evals.Data(Path("data/shards") / run.data, reader=run.train.reader)
    seeds = {}
    for seed in run.seeds:
        parts = {part: selfsup.load(config.encoders(name), seed, part).to(device)
                 for part in ("encoder", *getattr(module, "parts", ()))}
        seeds[str(seed)] = dict(evals.run(protocol, data=data, **parts, **options))
        print(f"{name} seed {seed}: {protocol} {seeds[str(seed)]['accuracy']:.2f} %")
    result = {"run": name, "protocol": protocol, **evals.summarise(seeds), "seeds": seeds}
    path = config.results(name) / f"{protocol}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=2) + "\n")
    os.replace(part, path)


if __name__ == "__main__":
    main()
