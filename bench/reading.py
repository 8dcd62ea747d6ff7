"""Reading from the resident cache: its cost beside a SimCLR step, and memory over epochs. Targets: under 2 %, no growth."""

import json
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from accelerate import Accelerator

from bench import common
from selfsup import errors
from selfsup.training import loop

STEPS, SKIP, EPOCHS = 30, 6, 60


@errors.main
def main():
    shards, split = common.opened()
    clock = common.Clock()
    with tempfile.TemporaryDirectory() as scratch:
        run = common.run("simclr", 32, STEPS * common.BATCH, shards.name)
        loop.pretrain(run, 0, Accelerator(cpu=True), shards, Path(scratch, "encoder"), Path(scratch, "runs"), tracker=clock)
    step = common.BATCH / clock.images_per_second(SKIP)
    process, times, memory = psutil.Process(), [], []
    per_epoch = len(split) // common.BATCH
    at = time.perf_counter()
    for i, batch in enumerate(split.batches(0, common.BATCH, EPOCHS * per_epoch * common.BATCH)):
        batch["image"].sum()  # touch every page
        times.append(time.perf_counter() - at)
        if i % per_epoch == per_epoch - 1:
            memory.append(process.memory_full_info().uss / 2**20)  # not the page cache that the map shares
        at = time.perf_counter()
    read = statistics.mean(times)
    # The allocator keeps and returns some 20 MB as it pleases: compare the most of both halves.
    growth = max(memory[EPOCHS // 2 :]) - max(memory[: EPOCHS // 2])
    result = {"bench": "reading", "data": shards.name, "read_ms": round(read * 1e3, 3), "step_ms": round(step * 1e3, 1),
              "share_percent": round(100 * read / step, 2), "epochs": EPOCHS, "growth_mb": round(growth, 2)}  # fmt: skip
    print(f"a batch of {common.BATCH}: read in {result['read_ms']} ms, trained on in {result['step_ms']} ms: "
          f"{result['share_percent']} % (target under 2); {growth:+.2f} MB over {EPOCHS} epochs")  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
