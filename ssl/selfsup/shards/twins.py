"""The same sample in two splits, found by the hash of its decoded first column.

A carved split, which is a part of one pool, keeps none that stands in a split before it, in the order: those that were
given, then test, val, train. Between splits that were given, such are counted and nothing is moved."""

import numpy as np

from selfsup.data.tars import parallel
from selfsup.sources import SPLITS


def apart(by_task, tasks, work, carved, title, workers):
    """`by_task`, the parts that each of `tasks` made, without twins: tasks that hold some are done again, with the
    hashes {split: {…}} to leave out as a last item. `carved`: the splits that are."""
    left = _left_out(by_task, carved)
    if left:
        again = parallel(work, [(*tasks[i], left[i]) for i in left], f"{title} without twins", workers=workers)
        for i, parts in zip(left, again):
            by_task[i] = parts
    return by_task


def _left_out(by_task, carved):
    """{task number: {split: hashes of what must go}}."""
    seen, left = np.empty(0, np.uint64), {}
    for split in [*(split for split in SPLITS if split not in carved), *(s for s in reversed(SPLITS) if s in carved)]:
        parts = [(i, part["hashes"]) for i, some in enumerate(by_task) for part in some if part["split"] == split]
        if not parts:
            continue
        hashes = np.concatenate([some for _, some in parts])
        if split in carved:
            twins = np.split(np.isin(hashes, seen), np.cumsum([len(some) for _, some in parts])[:-1])
            for (i, some), here in zip(parts, twins):
                if here.any():
                    left.setdefault(i, {})[split] = frozenset(some[here].tolist())
        seen = np.union1d(seen, hashes)
    return left


def counted(found, hashes):
    """What a card says of twins, {} where there are none: `left_out`, {split: samples}, and `between`, {split: {other:
    how many of its samples stand there, too}}. `found`: parts; `hashes`: {split: those kept}."""
    left = {split: sum(part["left_out"] for part in found if part["split"] == split) for split in SPLITS}
    between = {split: {other: int(np.isin(hashes[split], hashes[other]).sum()) for other in others}
               for split, others in (("val", ("train",)), ("test", ("train", "val")))}
    between = {split: {other: count for other, count in some.items() if count} for split, some in between.items()}
    facts = {"left_out": {split: count for split, count in left.items() if count},
             "between": {split: some for split, some in between.items() if some}}
    return {key: value for key, value in facts.items() if value}
