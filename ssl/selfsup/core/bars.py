"""Progress bars: in a terminal one that moves, in a log a line now and then."""

import sys

EVERY = 1, 30  # seconds between two looks at it, in a terminal and in a log


class Lines:
    """What tqdm writes over and over, as lines of their own."""

    encoding = "utf-8"

    def write(self, text):
        if text := text.strip("\r\n "):
            sys.stderr.write(f"{text}\n")

    def flush(self):
        sys.stderr.flush()


def bar(batches=None, title=None, total=None, **more):
    """tqdm's bar, on stderr."""
    from tqdm import tqdm  # here: who shows none need not import it

    kind = {"mininterval": EVERY[0]}
    if not sys.stderr.isatty():
        kind = {"mininterval": EVERY[1], "miniters": 1, "file": Lines()}  # 1: else a thread of tqdm's adds lines
    return tqdm(batches, title, total, **kind, **more)
