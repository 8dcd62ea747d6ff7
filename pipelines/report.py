"""report.py: compare the runs of the experiment in params.yaml, and write data/report/<experiment>."""

from selfsup import config, errors, plots, report


@errors.main
def main():
    params = config.load()
    plots.write(params)
    print(f"the report is at {report.build(params)}")


if __name__ == "__main__":
    main()
