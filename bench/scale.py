"""Judges at ImageNet's size: memory and seconds of `linear`, `knn` and `retrieval` on synthetic features, and what that
makes of 1.28 million.

Features are 2,048 numbers a sample of 100 classes; each is measured in a process of its own, since a peak of memory
stays. Seconds are those of one weight decay and of 1,000 queries, on all cores or a GPU where there is one. Memory counts
the features themselves, which `embed` fills in one array. Aim: `linear` at most 16 GB at 1.28 million samples.
"""

import json
import resource
import subprocess
import sys
import time

import torch

from selfsup import errors
from selfsup.evals import knn, linear, retrieval

SIZES, WANTED, WIDTH, CLASSES, QUERIES = (100_000, 400_000), 1_281_167, 2048, 100, 1000
JUDGES = ("linear", "knn", "retrieval")


def peak(device):
    """GB that this process, or on a GPU its tensors, took at most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def one(judge, count):
    """What one judge takes for `count` samples, beyond a process that has imported everything."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = peak(device)
    generator = torch.Generator(device).manual_seed(0)
    labels = torch.randint(CLASSES, (count,), generator=generator, device=device)
    features = torch.empty(count, WIDTH, device=device).normal_(generator=generator)
    features[torch.arange(count, device=device), labels] += 4
    some, truth = features[:QUERIES].clone(), labels[:QUERIES]
    start = time.perf_counter()
    if judge == "linear":
        linear.Probe((features, labels), (some, truth), CLASSES, [1e-2])
    else:
        torch.nn.functional.normalize(features, dim=1, out=features)
        if judge == "knn":
            knn.predict(features, labels, CLASSES, some, [20], [0.1])
        else:
            retrieval.nearest(features, some, 20)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return {"seconds": time.perf_counter() - start, "gb": peak(device) - before}


@errors.main
def main():
    print("judge      samples       GB   seconds")
    results = {}
    for judge in JUDGES:
        found = []
        for count in SIZES:
            words = [sys.executable, "-m", "bench.scale", judge, str(count)]
            found.append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
        rise = {name: (found[1][name] - found[0][name]) / (SIZES[1] - SIZES[0]) for name in found[0]}
        found.append({name: found[1][name] + rise[name] * (WANTED - SIZES[1]) for name in rise})
        for count, line in zip((*SIZES, WANTED), found):
            said = "  extrapolated" if count == WANTED else ""
            print(f"{judge:<10}{count:>9,}{line['gb']:>9.2f}{line['seconds']:>10.1f}{said}", flush=True)
        results[judge] = {name: [round(line[name], 2) for line in found] for name in rise}
    print(json.dumps({"bench": "scale", "samples": [*SIZES, WANTED], **results}))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(one(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
