"""What is found of a claim, in words: measures by their protocols' titles, amounts in points, and what would decide."""

import math
import re

from selfsup import evals

# Of what protocols yield beside accuracies, which are per cent: bits a token, how many labels are in use, shares.
PLAIN = re.compile(r"(\.bits|\.used|layer_mix\..*\.\d+)$")
SEEDS = 100  # more than these nobody trains


def accuracy(by):
    """Whether a measure is a protocol's, in per cent; what training records and costs has units of its own."""
    return by.split(".")[0] not in ("history", "cost")


def percent(by):
    return accuracy(by) and not PLAIN.search(by)


def measured(by):
    """A measure in words: accuracy by Linear; Few labels (finetune, 1); nmi after training; accuracy by Linear on films."""
    (data, _, file), path = by.partition(".")[0].rpartition("/"), by.split(".")[1:]
    words = [word.replace("_", " ") for word in path]
    if file == "cost":
        return ", ".join(words)
    if file == "history":
        first = words[0] == "first"
        return f"{', '.join(words[first:])} {'when training began' if first else 'after training'}"
    title = evals.load(file).title if file in evals.names() else file
    return (f"{title} ({', '.join(words)})" if words else f"accuracy by {title}") + f" on {data}" * bool(data)


def label(by):
    """Of an axis: the measure and its unit."""
    file, *path = by.rpartition("/")[2].split(".")
    points = path and path[0] in getattr(evals.load(file), "points", ()) if file in evals.names() else False
    return measured(by) + (", points" if points else ", %" if percent(by) else "")


def number(value, by):
    return f"{value:.1f}" if percent(by) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def amount(value, by):
    """The size of a difference: 2.5 points, 0.45, 1 point."""
    shown = f"{value:,.0f}" if value == round(value) else number(value, by)
    return f"{shown} point{'s' * (shown not in ('1', '1.0'))}" if percent(by) else shown


def interval(found, by):
    """(95 % interval −4.7 to −0.2, 3 seeds)."""
    _, low, high = found.interval
    count = f"{len(found.seeds)} seed{'s' * (len(found.seeds) > 1)}"
    if low is None:
        return f"({count}, without an interval)"
    shown = f"(95 % interval {number(low, by)} to {number(high, by)}, {count})".replace("-", "−")
    return re.sub(r"−(0\.0[ ,])", r"\1", shown)


def difference(first, second, found, by, than_by, margin):
    """What a difference was found to be and was expected to be. first, second: of which runs."""
    mean = found.interval[0]
    other = second if than_by == by else f"{measured(than_by)} of {second}"
    least = f", and less than {amount(margin, by)} would not matter" if margin else ""
    lead = f"{amount(abs(mean), by)} {'above' if mean >= 0 else 'below'} {other} {interval(found, by)}"
    return _capital(f"{measured(by)}: {first} is {lead}; expected was above{least}")


def bounded(which, found, by, above, below):
    """What a measure was found to be and was expected to be."""
    unit = " %" * percent(by)
    bound = f"above {above:g}{unit}" if above is not None else f"below {below:g}{unit}"
    shown = f"{number(found.interval[0], by)}{unit} {interval(found, by)}"
    return _capital(f"{measured(by)}: {which} is {shown}; expected was {bound}")


def nothing(which, by):
    return _capital(f"{measured(by)} of {which}: no results yet")


def _capital(text):
    return text[0].upper() + text[1:]


def decides(found, bound=0.0, margin=None):
    """What would decide whether a Value is above or below `bound`, or nearer to 0 than `margin`, where it is undecided:
    the number of seeds at which its interval would be narrow enough, if its mean and the spread of its seeds stayed."""
    mean, low, high = found.interval
    n, gap = len(found.seeds), abs(mean - bound)
    if n < 2:
        return "It is of one seed: three or more would say what another seed changes."
    small = margin is not None and margin - abs(mean) > gap
    gap = margin - abs(mean) if small else gap
    from scipy.special import stdtrit  # imported here: it takes a second

    spread = (high - low) / 2 * math.sqrt(n) / stdtrit(n - 1, 0.975)
    enough = next((k for k in range(n + 1, SEEDS + 1) if stdtrit(k - 1, 0.975) * spread / math.sqrt(k) < gap), None)
    if enough is None:
        return (f"No number of seeds up to {SEEDS} would decide it, if mean and spread stay as they are: it takes another "
                "budget.")
    what = "that there is no difference of that size" if small else f"that it is {'above' if mean > bound else 'below'}"
    return f"{enough} seeds in place of {n} would decide it, if mean and spread stay as they are: {what}."


def decides_ranks(low, high, runs, margin=None):
    """The same of a difference of rank correlations, whose interval is over runs."""
    mean, half = (low + high) / 2, (high - low) / 2
    gap = max(abs(mean), (margin or 0) - abs(mean))
    enough = math.ceil(runs * (half / gap) ** 2) + 1 if gap > half / 10 else None
    return (f"About {enough} runs in place of {runs} would decide it, if the difference stays as it is." if enough else
            "The difference is so near to 0 that more runs would hardly decide it.")
