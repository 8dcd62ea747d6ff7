"""The runs of `params.yaml` beside what lightly and solo-learn publish on CIFAR-10, with a column in lightly's
protocol: kNN with k = 200 and temperature 0.1, nothing chosen. Needs the runs' encoders and results; prints Markdown.

The peers train a ResNet-18 for 200 (lightly, batch 128) and 1,000 epochs (solo-learn) and let the test set choose the
epoch or train a linear head beside the encoder, so that their order is to be compared and not their height.
"""

import argparse
from pathlib import Path

import torch.nn.functional as F
from scipy.stats import spearmanr

import selfsup
from selfsup import artefacts, config, errors, evals
from selfsup.evals import knn

# Percent: lightly's benchmark table (kNN, best epoch on test), solo-learn's (online linear head on test).
LIGHTLY = {"barlow_twins": 84.2, "byol": 86.9, "dino": 84.0, "moco": 83.8, "simclr": 84.7, "simsiam": 81.9,
           "swav": 81.2}  # fmt: skip
SOLO = {"moco_v3": 93.10, "moco": 92.94, "byol": 92.58, "barlow_twins": 92.10, "vicreg": 92.07, "simclr": 90.74,
        "simsiam": 90.51, "dino": 89.52, "swav": 89.17}  # fmt: skip


def theirs(encoder, data):
    """Test accuracy of one encoder, in percent, by lightly's kNN."""
    bank, labels = evals.embed(encoder, data.train)
    queries, truth = evals.embed(encoder, data.test)
    found = knn.predict(F.normalize(bank, dim=1), labels, len(data.card["classes"]), queries, [200], [0.1])
    return 100 * (found[200, 0.1] == truth).float().mean().item()


@errors.main
def main():
    argparse.ArgumentParser("bench.peers", description=__doc__).parse_args()
    params, rows = config.load(), {}
    for name, run in params.runs.items():
        files = [config.results(name) / f"{protocol}.json" for protocol in ("linear", "knn")]
        if run.method not in LIGHTLY | SOLO or not all(file.exists() for file in files):
            continue
        data = evals.Data(Path("data/shards") / run.data, reader="resident")
        encoders = [selfsup.load(config.encoders(name), seed) for seed in run.seeds]
        ours = [artefacts.result(file)["accuracy"] for file in files]
        rows[name] = run.method, [*ours, sum(theirs(encoder, data) for encoder in encoders) / len(encoders)]
    if not rows:
        raise errors.UserError("no run of params.yaml that a peer publishes a number for has results yet")
    print("| Run | Linear % | kNN % | kNN, lightly's protocol % | lightly, 200 epochs | solo-learn, 1,000 epochs |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (method, values) in sorted(rows.items(), key=lambda row: -row[1][1][0]):
        published = [f"{table[method]:.1f}" if method in table else "" for table in (LIGHTLY, SOLO)]
        title = name.removeprefix(f"{params.experiment}-")
        print("| " + " | ".join([title, *(f"{value:.1f}" for value in values), *published]) + " |")
    for title, column, table in (("lightly's, by its kNN", 2, LIGHTLY), ("solo-learn's, by linear", 0, SOLO)):
        pairs = [(values[column], table[method]) for method, values in rows.values() if method in table]
        if len(pairs) > 2:
            print(f"Rank correlation with {title}: {spearmanr(*zip(*pairs)).statistic:.2f} over {len(pairs)} runs")


if __name__ == "__main__":
    main()
