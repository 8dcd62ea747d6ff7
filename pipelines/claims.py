"""claims.py: what the experiments on the lectures' claims have found so far -> data/report/claims.html and claims.md."""

import argparse

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import claims, errors  # noqa: E402


@errors.main
def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(f"the lectures' claims are at {claims.build()}")


if __name__ == "__main__":
    main()
