"""fetch.py NAME: download a torchvision data set, by its class name, to data/raw/NAME."""

import argparse
from pathlib import Path

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import errors  # noqa: E402
from selfsup.sources import torchvision  # noqa: E402


@errors.main
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    name = parser.parse_args().name
    torchvision.splits(name, Path("data/raw") / name, download=True)


if __name__ == "__main__":
    main()
