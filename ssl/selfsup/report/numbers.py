"""The experiment's metrics file, in the one shape in which `dvc metrics show` and `dvc exp show` print a table."""

from selfsup.report.rows import options
from selfsup.report.table import interval


def metrics(params, rows):
    """YAML of one text a column: the runs' titles, then accuracy and interval by each protocol, a run a line.

    DVC makes a column of each key and shows a text of several lines as it is, so that a number under a key of its own for
    every run and protocol would be a line of thousands of characters. Numbers stand in the result files.
    """
    lines = [(row.title, row.results) for row in rows]
    lines += [(f"{row.title} on {data}", results) for row in rows for data, results in row.elsewhere.items()]
    columns = {"Run": [title for title, _ in lines]}     # a capital, as DVC sorts the columns
    for protocol in options(params):
        if any(protocol in results for _, results in lines):
            columns[protocol] = [interval(results.get(protocol)) or "-" for _, results in lines]
    return "".join(f"{name}: |-\n" + "".join(f"  {line}\n" for line in column) for name, column in columns.items())
