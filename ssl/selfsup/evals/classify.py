"""A method's own classifier, as it comes: of the methods that learn from labels, few or many. And whether it is as
right as it is sure (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""

from types import SimpleNamespace

import torch

from selfsup.evals import accuracy, bootstrap as interval, embed, percent

title = "Own classifier"
parts = ("classifier",)                                  # of the encoder folder, besides the encoder
points = ("ece", "overconfidence")                       # of what `test` yields those that are no accuracy
SURE = (50, 80, 90, 95, 99)                              # percent
BINS = 15                                                # of the calibration error, as in the paper


def choose(encoder, data, classifier):
    """Nothing is fitted and nothing chosen."""
    _, right = predictions(encoder, classifier, data.val)
    return SimpleNamespace(val_accuracy=percent(right.mean()), classifier=classifier)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test) and val_accuracy. Then, of the probability that the predicted class is
    given: `ece`, the expected calibration error in percent; `overconfidence`, its mean less the accuracy, and its
    interval; `sure`, the share of samples where it is at least so many percent, and `right`, the accuracy among them,
    if there are any."""
    probability, right = predictions(encoder, chosen.classifier, data.test)
    yield from accuracy(right, bootstrap)
    yield "val_accuracy", chosen.val_accuracy
    yield "ece", percent(calibration_error(probability, right))
    gap = (probability - right).cpu()
    low, high = interval(gap.numpy(), bootstrap)
    yield "overconfidence", {"accuracy": percent(gap.mean()), "low": percent(low), "high": percent(high)}
    sure = {str(least): probability >= least / 100 for least in SURE}
    yield "sure", {least: dict(accuracy(those, bootstrap)) for least, those in sure.items()}
    yield "right", {least: dict(accuracy(right[those], bootstrap)) for least, those in sure.items() if those.any()}


@torch.no_grad()
def predictions(encoder, classifier, split):
    """Of each sample the probability of the predicted class, and whether it is the right one: both float32 (N,)."""
    features, labels = embed(encoder, split)
    probability, predicted = classifier(features).softmax(1).max(1)
    return probability, (predicted == labels).float()


def calibration_error(probability, right):
    """Expected calibration error, 0 to 1: the mean over samples of how far the accuracy of those of about the same
    probability is from it (eq. 3); samples in BINS bins of one width, (0, 1/15], …"""
    bins = (probability * BINS).ceil().long().clamp(1, BINS) - 1
    gap = probability.new_zeros(BINS).index_add_(0, bins, right - probability)
    return gap.abs().sum() / len(right)


def by_labels(content):
    return {"": {None: content}}


def notes(report, rows, options):
    yield ("Own classifier: the one that the method trained, with the labels of its budget; nothing is fitted anew and "
           "nothing chosen.")


def panel(report, rows, options):
    text = ("How probable their own classifiers take their predictions to be on test, and how many of the sure ones are "
            "right. Over-confidence: the mean probability less the accuracy, in points.")
    table = report.crossed(rows, "classify", cells, heading)
    return report.Panel("confidence", "As right as they are sure?", text, list(sentences(rows)), table)


def cells(content):
    both = {(int(least), place): found for place, key in enumerate(("sure", "right"))
            for least, found in content[key].items()}
    return {(0, 0): {**content["overconfidence"], "least": -100.0}, **both}


def heading(column):
    least, place = column
    return ("right of these, %" if place else f"at least {least} % sure, %") if least else "Over-confidence"


def sentences(rows):
    for row in rows:
        errors = [content["ece"] for content in row.results["classify"]["seeds"].values()]
        yield f"{row.title}: expected calibration error {sum(errors) / len(errors):.1f} %."
