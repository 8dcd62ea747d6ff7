"""SimCLR views from 32 to 224 px: ours against lightly's, side by side on one thread, with blur and without.

Both make the same two views (crop, flip, jitter, grey, and at half the probability blur) of the same images held in
memory, normalised. They take turns, and CPU time is counted, so that a busy machine hurts both alike; the ratio is the
median over the rounds. Targets: without blur 6 times as many a second at 32 px, and 1.5 times at 224 px either way.
Needs lightly, for this benchmark only: pip install lightly==1.6.0
"""

import json
import statistics
import time
from dataclasses import replace

import torch

from bench import common
from selfsup import errors
from selfsup.inputs.augment import AUGMENTS
from selfsup.inputs.views import Views

PIXELS, ROUNDS, BATCH = 2**20, 9, 256  # pixels of all images of a size
SIZES, TARGETS = (32, 64, 96, 128, 224), {(32, 0.0): 6, (224, 0.0): 1.5, (224, 0.5): 1.5}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's, lightly's default


def seconds(function):
    """CPU seconds of the one thread there is."""
    start = time.process_time()
    function()
    return time.process_time() - start


def compared(size, blur):
    """One line of the table."""
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    theirs = SimCLRTransform(input_size=size, gaussian_blur=blur)
    ours = Views(2, augment=replace(AUGMENTS["simclr"], blur=blur))
    count = max(4, PIXELS // size**2)
    images = torch.randint(256, (count, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pictures = [Image.fromarray(image) for image in images.permute(0, 2, 3, 1).numpy()]
    batches = [
        {"image": part, "index": index, "epoch": torch.zeros_like(index)}
        for part, index in zip(images.split(BATCH), torch.arange(count).split(BATCH))
    ]

    def run_ours():
        for batch in batches:
            ours(batch, 0, MEAN, STD)

    def run_theirs():
        for picture in pictures:
            theirs(picture)

    run_ours(), run_theirs()  # warm up
    times = [(seconds(run_ours), seconds(run_theirs)) for _ in range(ROUNDS)]
    ratios = sorted(b / a for a, b in times)
    micros = [statistics.median(side) / (2 * count) * 1e6 for side in zip(*times)]
    return {"px": size, "blur": blur, "ours_us": round(micros[0], 1), "lightly_us": round(micros[1], 1),
            "ratio": round(statistics.median(ratios), 2), "low": round(ratios[0], 2), "high": round(ratios[-1], 2),
            "target": TARGETS.get((size, blur))}  # fmt: skip


@errors.main
def main():
    common.need_lightly()
    torch.set_num_threads(1)
    print("   px  blur   ours us   lightly us   ratio   over the rounds   target")
    results = []
    for size in SIZES:
        for blur in (0.0, 0.5):
            found = compared(size, blur)
            results.append(found)
            print(f"{size:>5}{blur:>6}{found['ours_us']:>10.1f}{found['lightly_us']:>13.1f}{found['ratio']:>8.2f}"
                  f"     {found['low']:.2f} to {found['high']:.2f}   {found['target'] or ''}", flush=True)  # fmt: skip
    print(json.dumps({"bench": "views", "views": results}))


if __name__ == "__main__":
    main()
