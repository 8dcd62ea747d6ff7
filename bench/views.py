"""SimCLR views at 32 px: ours against lightly's, side by side on one thread. Target: at least 6 times as many a second.

Both make the same two views (crop, flip, jitter, grey; no blur) of the same images held in memory, normalised. They
take turns, and CPU time is counted, so that a busy machine hurts both alike; the ratio is the median over the rounds.
Needs lightly, for this benchmark only: pip install lightly==1.6.0
"""

import json
import statistics
import time

import torch

from bench import common
from selfsup import errors
from selfsup.inputs.views import Views

IMAGES, ROUNDS = 1024, 9
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's, lightly's default


def lightly_transform():
    common.need_lightly()
    from lightly.transforms import SimCLRTransform

    return SimCLRTransform(input_size=32, gaussian_blur=0.0)


def seconds(function):
    """CPU seconds of the one thread there is."""
    start = time.process_time()
    function()
    return time.process_time() - start


@errors.main
def main():
    from PIL import Image

    torch.set_num_threads(1)
    theirs = lightly_transform()
    ours = Views(2, augment="simclr")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 3, 32, 32), generator=generator, dtype=torch.uint8)
    pictures = [Image.fromarray(image) for image in images.permute(0, 2, 3, 1).numpy()]
    batches = [
        {"image": part, "index": index, "epoch": torch.zeros_like(index)}
        for part, index in zip(images.split(256), torch.arange(IMAGES).split(256))
    ]

    def run_ours():
        for batch in batches:
            ours(batch, 0, MEAN, STD)

    def run_theirs():
        for picture in pictures:
            theirs(picture)

    run_ours(), run_theirs()  # warm up
    times = [(seconds(run_ours), seconds(run_theirs)) for _ in range(ROUNDS)]
    views = 2 * IMAGES
    result = {
        "bench": "views",
        "ours_us": round(statistics.median(a for a, _ in times) / views * 1e6, 1),
        "lightly_us": round(statistics.median(b for _, b in times) / views * 1e6, 1),
        "ratio": round(statistics.median(b / a for a, b in times), 2),
        "ratio_low": round(min(b / a for a, b in times), 2),
        "ratio_high": round(max(b / a for a, b in times), 2),
        "target": 6,
    }
    print("SimCLR views at 32 px, one thread   CPU us a view   views a second")
    for name in ("ours", "lightly"):
        print(f"{name:<36}{result[name + '_us']:>13.1f}{1e6 / result[name + '_us']:>17.0f}")
    low, high = result["ratio_low"], result["ratio_high"]
    print(f"ratio {result['ratio']} ({low} to {high} over {ROUNDS} rounds), target {result['target']}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
