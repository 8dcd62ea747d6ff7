"""evaluate.py PROTOCOL RUN: judge the encoders of a run, one a seed, and write their PROTOCOL.json."""

import json
import os
import sys
from pathlib import Path

import torch

import selfsup
from selfsup import config, errors, evals


@errors.main
def main(protocol, name):
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
        seeds[str(seed)] = dict(module.run(data=data, **parts, **options))
        print(f"{name} seed {seed}: {protocol} {seeds[str(seed)]['accuracy']:.2f} %")
    result = {"run": name, "protocol": protocol, **evals.summarise(seeds), "seeds": seeds}
    path = config.results(name) / f"{protocol}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=2) + "\n")
    os.replace(part, path)
    track(params, name)


def track(params, name):
    """The result files are the truth and MLflow a view of them, so a failure here is said and not fatal."""
    try:
        from selfsup import tracking

        tracking.sync(params, name)
    except Exception as error:
        print(f"warning: the result is not in MLflow, `make track` adds it later: {' '.join(str(error).split())}",
              file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python pipelines/evaluate.py PROTOCOL RUN")
    main(*sys.argv[1:])
