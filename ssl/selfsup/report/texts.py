"""Texts of a data set, to be read."""

import selfsup.data
from selfsup.report.pictures import queries


def told(samples, root):
    """{data set: [(class, text)]} of a val sample of each of the first classes, without labels of the first samples, of
    data sets that have texts and no pictures."""
    found = {}
    for name, sample in samples.items():
        tokens = sample.columns.get("text")
        if tokens is not None and sample.images is None:
            tokenizer = selfsup.data.tokenizer(root / "data/shards" / name)
            found[name] = [(sample.classes[sample.labels[i]] if sample.labelled else "", tokenizer.decode(tokens[i].tolist()))
                           for i in queries(sample).tolist()]
    return found
