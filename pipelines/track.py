"""track.py: make or complete the MLflow runs of every encoder in data/encoders from the files alone (`make track`)."""

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import config, errors, tracking  # noqa: E402


@errors.main
def main():
    print(f"MLflow holds {tracking.sync(config.load())} runs: `make ui` shows them")


if __name__ == "__main__":
    main()
