"""Several tasks by a method's own heads, and what learning others beside one did to it: it helps, or it harms.

Which tasks belong together is Standley et al. 2020, "Which Tasks Should Be Learned Together in Multi-task Learning?",
https://arxiv.org/abs/1905.07553."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from selfsup.errors import UserError
from selfsup.evals import accuracy, percent, students

title = "First task"
column = False                                           # but a table and a figure of its own
parts = ("heads",)                                       # of the encoder folder, besides the encoder
perhaps = tuple(f"encoder_{number}" for number in range(2, 9))  # of the tasks after the first, where each has its own
columns = ("attributes",)                                # of the data, besides what the encoder takes and the label


def choose(encoder, data, heads, **trunks):
    """Nothing is fitted and nothing chosen: of each task the loss on val, in units of what guessing costs, the
    logarithm of the number of values or the variance, and how well it is done there."""
    if lacking := [name for name in columns if name not in data.card["columns"]]:
        raise UserError(f"{data.shards}: tasks needs the column '{lacking[0]}', which it does not have")
    networks = [encoder, *(trunks[name] for name in perhaps if name in trunks)]
    val = {task: (percent(done.mean()), round(loss.mean().item(), 5))
           for task, (done, loss) in outcome(networks, heads, data, data.val).items()}
    return SimpleNamespace(val_accuracy=next(iter(val.values()))[0], val=val, networks=networks, heads=heads)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test) and val_accuracy of the first task, and `tasks`, of each the same and
    val_loss. Of a measure the accuracy is the explained variance."""
    tasks = {task: {**dict(accuracy(done, bootstrap)), **dict(zip(("val_accuracy", "val_loss"), chosen.val[task]))}
             for task, (done, _) in outcome(chosen.networks, chosen.heads, data, data.test).items()}
    first = next(iter(tasks.values()))
    for name in ("accuracy", "low", "high", "val_accuracy"):
        yield name, first[name]
    yield "tasks", tasks


@torch.no_grad()
def outcome(networks, heads, data, split):
    """{task: (how well, loss)}, both (N,): right or wrong, and the cross-entropy over the logarithm of the number of
    values; or 1 − the squared error, and that, over the variance in this split."""
    known = {"class": len(data.card["classes"]), **data.card.get("attributes", {})}
    names, device = networks[0].info["args"].get("tasks", ["class"]), next(heads.parameters()).device
    if lacking := [task for task in names if task not in known]:
        raise UserError(f'{data.shards}: there is no task "{lacking[0]}", which the encoder was trained for')
    sizes, outputs, targets = [known[task] or 1 for task in names], [], []
    for part in split.in_order(512):
        x = networks[0].prepare(part[networks[0].takes].to(device))
        of = [heads(network.eval()(x)).float().split(sizes, 1) for network in networks]
        outputs.append([of[number if len(of) > 1 else 0][number] for number in range(len(names))])
        targets.append(torch.cat([part["label"][:, None], part["attributes"]], 1).to(device))
    found, targets = {}, dict(zip(known, torch.cat(targets).T))
    for task, out in zip(names, map(torch.cat, zip(*outputs))):
        if known[task]:
            truth = targets[task].long()
            loss = F.cross_entropy(out, truth, reduction="none") / math.log(known[task])
            found[task] = (out.argmax(1) == truth).float(), loss
        else:
            error = (out[:, 0] - targets[task]).square() / targets[task].var(correction=0)
            found[task] = 1 - error, error
    return found


def notes(report, rows, options):
    yield ("Tasks: by the heads that the method trained. Accuracy on test, of a measure the share of its variance that "
           "is explained. A gain is (L alone − L) / L alone, of losses on val; L alone: of the run of that task alone.")


def panel(report, rows, options):
    table = gains(rows)
    lines, names = list(dict.fromkeys(line for line, _ in table)), list(dict.fromkeys(task for _, task in table))
    cells = [(SimpleNamespace(title=line, role=""), [table.get((line, task), {}).get(kind) for kind in ("gain", "done")
                                                     for task in names]) for line in lines]
    heads = [f"{task}: gain, %" for task in names] + [f"{task}, %" for task in names]
    return report.Panel(
        "tasks", "What tasks do to each other",
        "Each task by itself and beside others, with as many images seen: by how much its loss on val is smaller than "
        "alone (green) or larger (red), in per cent, and below it how well it is done on test.",
        sentences=list(groupings(rows)), table=(heads, cells), figure=figure(report, table, lines, names),
        remarks=["A gain above 0 is positive transfer. Losses are in units of what guessing costs. Means over the "
                 "seeds, each run beside that of its own seed; intervals are in the Markdown table.",
                 "Groups were sought among all, by the losses on val. What a network of three tasks or more would come "
                 "to is, where no run says it, the mean of its pairs (Standley et al. 2020). In brackets: what a "
                 "network learns, and another one does better."])


def of(row):
    """The tasks of a run."""
    return list(next(iter(row.results["tasks"]["seeds"].values()))["tasks"])


def setting(row):
    """What else two runs have in common: data, encoder, budget, views."""
    apart = ("tasks", "sharing", "pull")
    args = {name: value for name, value in row.run.args.items() if name not in apart}
    return row.run.data, str(row.run.encoder), str(row.run.train), str(args)


def alone(rows, task, like):
    """The run of a task by itself that is otherwise as another run."""
    return next((row for row in rows if of(row) == [task] and setting(row) == setting(like)), None)


def losses(row, task):
    """{seed: loss on val}."""
    return {seed: content["tasks"][task]["val_loss"] for seed, content in row.results["tasks"]["seeds"].items()}


def gain(single, row, task):
    """(L alone − L) / L alone in per cent, {"accuracy", "low", "high"} over the seeds that both have."""
    before, after = losses(single, task), losses(row, task)
    each = [100 * (before[seed] - after[seed]) / before[seed] for seed in before if seed in after]
    mean, half = students(each) if len(each) > 1 else (sum(each) / len(each), 0.0) if each else (math.nan, 0.0)
    return {"accuracy": float(mean), "low": float(mean - half), "high": float(mean + half)}


def gains(rows):
    """{(beside what, task): {"done": result, "gain": result}}, of tasks alone, then beside another one, then in runs of
    more; "gain" where the task was learned alone, too."""
    found = {}
    for row in sorted(rows, key=lambda row: len(of(row))):
        soft = ", soft" if row.run.args.get("sharing") == "soft" else ""
        for task in of(row):
            others = [other for other in of(row) if other != task]
            line = ("alone" if not others else f"with {others[0]}" if len(others) == 1 else row.title) + soft
            done = {seed: content["tasks"][task] for seed, content in row.results["tasks"]["seeds"].items()}
            cell = found[line, task] = {"done": over(done)}
            single = alone(rows, task, row)
            if others and single:
                cell["gain"] = gain(single, row, task)
    return found


def over(seeds):
    """Mean and interval as `summarise`, of numbers that may be below 0."""
    values = [found["accuracy"] for found in seeds.values()]
    if len(values) == 1:
        return {key: next(iter(seeds.values()))[key] for key in ("accuracy", "low", "high")}
    mean, half = students(values)
    return {"accuracy": float(mean), "low": float(mean - half), "high": float(mean + half)}


# Which tasks should be learned together


def grouped(tasks, loss, most):
    """The best way to do all `tasks` by at most `most` networks: (Σ loss, [(what a network learns, what it does), …]).

    loss(task, learned) of a network that learns the tasks `learned`, a frozenset. A network may learn a task that
    another one does. Exhaustive: over the ways to divide the tasks among networks, and what else each one learns."""
    sets = [frozenset(some) for n in range(1, len(tasks) + 1) for some in itertools.combinations(tasks, n)]
    best = {}
    for done in sets:
        totals = {learned: sum(loss(task, learned) for task in done) for learned in sets if done <= learned}
        learned = min(totals, key=totals.get)            # the smallest of equals
        best[done] = totals[learned], learned
    ways = [way for way in divided(list(tasks)) if len(way) <= most]
    way = min(ways, key=lambda way: (sum(best[done][0] for done in way), len(way)))
    return sum(best[done][0] for done in way), [(best[done][1], done) for done in way]


def divided(tasks):
    """All ways to divide tasks into groups: lists of frozensets."""
    if not tasks:
        yield []
        return
    for way in divided(tasks[1:]):
        yield [frozenset(tasks[:1]), *way]
        for i, group in enumerate(way):
            yield [*way[:i], group | {tasks[0]}, *way[i + 1:]]


def groupings(rows):
    """The best groups for each number of networks, in sentences; of the tasks of which all pairs were run."""
    hard = [row for row in rows if row.run.args.get("sharing", "hard") == "hard"]
    for like in {setting(row): row for row in hard}.values():
        found = {frozenset(of(row)): row for row in hard if setting(row) == setting(like)}
        tasks = complete(found)
        if len(tasks) < 2:
            continue

        def loss(task, learned, found=found):
            if learned in found:
                return float(np.mean(list(losses(found[learned], task).values())))
            return float(np.mean([loss(task, frozenset({task, other})) for other in learned - {task}]))

        for most in range(1, len(tasks) + 1):
            total, networks = grouped(tasks, loss, most)
            if len(networks) < most:
                break
            said = "; ".join(" + ".join(task if task in done else f"({task})" for task in tasks if task in learned)
                             for learned, done in networks)
            yield f"{most} network{'s' * (most > 1)} for {len(tasks)} tasks, loss {total:.3f}: {said}."


def complete(found):
    """Tasks of which each by itself and all pairs are there; what lacks most pairs is left out."""
    tasks = [task for some in found if len(some) == 1 for task in some]
    while lacking := {task: n for task in tasks if (n := sum(frozenset({task, other}) not in found for other in tasks
                                                             if other != task))}:
        tasks.remove(max(lacking, key=lacking.get))
    return tasks


def figure(report, table, lines, names):
    """A cell for each task and what was learned beside it, coloured by its gain."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    gained = [abs(cell["gain"]["accuracy"]) for cell in table.values() if "gain" in cell]
    colours, most = LinearSegmentedColormap.from_list("gain", [report.BAD, "#ffffff", report.GOOD]), max([1, *gained])
    drawing, axis = report.pyplot().subplots(figsize=(2.2 + 1.05 * len(names), 0.6 + 0.42 * len(lines)))
    scale = Normalize(-most, most)
    axis.grid(False)
    for (line, task), cell in table.items():
        x, y = names.index(task), lines.index(line)
        told = f"{cell['done']['accuracy']:.1f} %"
        if "gain" in cell:
            value = cell["gain"]["accuracy"]
            axis.fill_between([x - .5, x + .5], y - .5, y + .5, color=colours(scale(value)), alpha=.75, linewidth=0)
            told = f"{value:+.1f}\n{told}"
        axis.text(x, y, told, ha="center", va="center", fontsize=7.5)
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(lines)), lines)
    axis.set_xlim(-.5, len(names) - .5)
    axis.set_ylim(len(lines) - .5, -.5)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    drawing.tight_layout()
    return report.svg(drawing)
