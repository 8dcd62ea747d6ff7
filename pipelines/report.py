"""report.py: compare the runs of the experiment in params.yaml, and write data/report/<experiment>."""

import argparse
import sys

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import config, errors, plots, report, tracking  # noqa: E402


@errors.main
def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    params = config.load()
    plots.write(params)
    print(f"the report is at {report.build(params)}")
    try:  # once for all results, since importing mlflow takes seconds; `make track` does the same
        tracking.sync(params, list(params.runs))
    except errors.UserError as error:
        print(f"warning: the results are not in MLflow: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
