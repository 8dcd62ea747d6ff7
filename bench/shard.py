"""The shard stage on JPEGs of 500 x 375 pixels, stored at 224: images a second and core. Target: 400."""

import json
import resource
import tempfile
import time
from pathlib import Path

from bench import common
from selfsup import errors, shards

IMAGES, SIZE = 1000, 224


@errors.main
def main():
    with tempfile.TemporaryDirectory() as scratch:
        common.photos(Path(scratch, "raw"), IMAGES)
        spec = {"source": "folder", "root": f"{scratch}/raw", "size": SIZE, "val_share": 0.0, "max_bad": 0.0}
        shards.write("photos", spec, Path(scratch, "first"), workers=1)  # what is imported and read is there then
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        shards.write("photos", spec, Path(scratch, "photos"), workers=1)
        after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - start
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{IMAGES} JPEGs of 500 x 375: {IMAGES / cpu:.0f} images a second of CPU time (target 400), {IMAGES / seconds:.0f} "
          "a second")
    print(json.dumps({"bench": "shard", "images_per_core_second": round(IMAGES / cpu), "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main()
