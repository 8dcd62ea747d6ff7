"""Where classes are uneven: how many samples each has, what guessing the largest gives, accuracy balanced over classes."""

from selfsup import evals
from selfsup.report import panels

LISTED = 20  # classes that are counted by name


def notes(cards):
    """A sentence for each data set whose classes are uneven in test."""
    for name, card in cards.items():
        counts = dict(zip(card.get("classes") or [], card.get("class_counts", {}).get("test", [])))
        if not evals.uneven(counts.values()):
            continue
        largest = max(counts, key=counts.get)
        shown = ", ".join(f"{key} {count:,}" for key, count in counts.items()) if len(counts) <= LISTED else (
            f"{min(counts.values()):,} to {max(counts.values()):,} in {len(counts)} classes")
        yield (f"Data set {name}: classes are uneven, of test {shown}. Who always says {largest} is right about "
               f"{100 * counts[largest] / sum(counts.values()):.1f} %, so that this is the bound, and not one in "
               f"{len(counts)}; balanced accuracy, the mean of the classes' own, has a table of its own.")


def panel(params, rows):
    """The table of balanced accuracies, in a list; [] where no judge saw uneven classes."""
    heads = [protocol for protocol in panels.columns(params, rows) if any(of(row, protocol) for row in rows)]
    if not heads:
        return []
    table = [(row, [of(row, protocol) for protocol in heads]) for row in rows if row.results]
    return [panels.Panel("balanced", "Balanced accuracy", "Every class counts alike, however many samples it has: the mean of "
                         "the classes' accuracies, in percent.", table=([panels.title(protocol) for protocol in heads], table))]


def of(row, protocol):
    """A run's balanced accuracy summarised over its seeds; None where its judge saw even classes."""
    seeds = row.results.get(protocol, {}).get("seeds", {})
    found = {seed: content["balanced"] for seed, content in seeds.items() if "balanced" in content}
    return evals.summarise(found) if found else None
