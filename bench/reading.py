"""Reading: from the resident cache, its cost beside a SimCLR step and memory over epochs; and from tars of JPEGs of 256
pixels, beside webdataset's own pipeline. Targets: under 2 %, no growth; 1.2 times as many images."""

import json
import statistics
import tempfile
import time
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator

from bench import common
from selfsup import data, errors, shards
from selfsup.training import loop

STEPS, SKIP, EPOCHS = 30, 6, 60
IMAGES, ROUNDS, SIZE = 2000, 5, 256


def resident():
    """Milliseconds of reading a batch and of training on it; the growth of memory in MB."""
    folder, split = common.opened()
    clock = common.Clock()
    with tempfile.TemporaryDirectory() as scratch:
        run = common.run("simclr", 32, STEPS * common.BATCH, folder.name)
        loop.pretrain(run, 0, Accelerator(cpu=True), folder, Path(scratch, "encoder"), Path(scratch, "runs"), tracker=clock)
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
    result = {"data": folder.name, "read_ms": round(read * 1e3, 3), "step_ms": round(step * 1e3, 1),
              "share_percent": round(100 * read / step, 2), "epochs": EPOCHS, "growth_mb": round(growth, 2)}  # fmt: skip
    print(f"a batch of {common.BATCH}: read in {result['read_ms']} ms, trained on in {result['step_ms']} ms: "
          f"{result['share_percent']} % (target under 2); {growth:+.2f} MB over {EPOCHS} epochs")  # fmt: skip
    return result


def ours(split):
    for batch in split.batches(0, common.BATCH, len(split)):
        yield batch["image"]


def theirs(split):
    """webdataset's own: shuffled by 1,000, decoded to tensors (C, H, W), in batches."""
    import webdataset

    urls = [f"{split.folder}/{entry['file']}" for entry in split.entries]
    stages = webdataset.WebDataset(urls, shardshuffle=100, seed=0).shuffle(1000).decode("torchrgb8")
    for images, _ in stages.to_tuple("jpg", "cls").batched(common.BATCH):
        if len(images) == common.BATCH:
            yield images


def streamed():
    """Microseconds of CPU time that an image of a tar takes either side; of rounds in turns, with one thread."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        common.photos(Path(scratch, "raw"), IMAGES)
        spec = {"source": "folder", "root": f"{scratch}/raw", "size": SIZE, "val_share": 0.0, "max_bad": 0.0}
        shards.write("photos", spec, Path(scratch, "photos"))
        split = data.open(Path(scratch, "photos"), "train", "streaming", columns=["image", "label"])
        found = {ours: [], theirs: []}
        for _ in range(ROUNDS):
            for side, times in found.items():
                start = time.process_time()
                count = sum(len(images) for images in side(split))
                times.append((time.process_time() - start) / count)
    mine, others = (statistics.median(times) for times in found.values())
    ratios = sorted(b / a for a, b in zip(*found.values()))
    by = "simplejpeg" if data.images.simplejpeg else "Pillow"
    print(f"a JPEG of {SIZE} px from tars, by {by}: {mine * 1e6:.0f} us, webdataset {others * 1e6:.0f} us: "
          f"{others / mine:.2f} times as many (target 1.2; {ratios[0]:.2f} to {ratios[-1]:.2f} over {ROUNDS} rounds)")
    return {"decoder": by, "stream_us": round(mine * 1e6), "webdataset_us": round(others * 1e6), "ratio": round(others / mine, 2)}


@errors.main
def main():
    print(json.dumps({"bench": "reading", **streamed(), **resident()}))


if __name__ == "__main__":
    main()
