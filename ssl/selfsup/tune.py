"""Tuning: every run of an experiment gets as many trials, judged on val alone, and the best of them is its recipe.

A recipe belongs to a budget: a rate that a paper chose for a hundred times as many images says little here. Trials of a
run: its rate as it stands, a third and three times of it, and at the best of these a second value of the argument that
its method names as most sensitive (`Method.sensitive`); where there is none, a fourth rate. Each trains one seed by the
ordinary trainer. The score is the mean of what kNN and the linear classifier choose by, their accuracies on val.

The table of trials, data/results/<experiment>/tune.json, is what is known: a trial that is in it with the same
parameters, data and code is not run again, and a run that has the recipe chosen for it is tuned from the one that it
had before, so that a second tuning changes nothing.
"""

import functools
import hashlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import selfsup.data
from selfsup import artefacts, config, evals, methods
from selfsup.config import edit
from selfsup.core import files
from selfsup.errors import UserError
from selfsup.report.rows import CEILING, FLOOR
from selfsup.training.checkpoint import fingerprint
from selfsup.training.code import PACKAGE, code_hash, meaning
from selfsup.training.start import Start

TRIALS = 4
FACTOR = 3  # between two rates
JUDGES = ("knn", "linear")
TRIED = Path("data/tune")  # encoders of trials: scratch


def rounded(rate):
    """To the two digits that conf/ will hold, and that are trained with."""
    return float(f"{rate:.2g}")


def trials(recipe, second, scores):
    """The recipes to try, {"lr", "args"}, as far as they are known, the present one first. second: (argument, value) of
    the fourth, or None; scores: of the first three, as far as there are any, -inf of one that failed."""
    lr = recipe["lr"]
    rates = [lr, rounded(lr / FACTOR), rounded(lr * FACTOR)]
    found = [{"lr": rate, "args": recipe["args"]} for rate in rates]
    if len(scores) < len(rates):
        return found
    best = max(range(len(rates)), key=lambda i: scores[i])  # the first of equals
    if second:
        return [*found, {"lr": rates[best], "args": recipe["args"] | dict([second])}]
    # One step further where the best lies at an end, else half a step towards the better neighbour.
    towards = FACTOR if scores[2] > scores[1] else 1 / FACTOR
    return [*found, {"lr": rounded(rates[best] * towards ** (1 if best else 0.5)), "args": recipe["args"]}]


def second(run, runs):
    """(argument, value) to try beside a run's rate: its method's second value, or where it has that, the paper's. None
    where the method names no argument, or where `runs` of this method differ in it: then it is what they compare."""
    method = methods.load(run.method)
    if method.sensitive is None:
        return None
    name, value = method.sensitive
    default = config.arguments(method)[name][1]
    own = run.args.get(name, default)
    if any(other.method == run.method and other.args.get(name, default) != own for other in runs):
        return None
    return name, default if own == value else value


def score(trial):
    """Mean accuracy on val in percent; -inf of a trial that failed, None of one not done."""
    if "failed" in trial:
        return -math.inf
    return sum(trial[judge] for judge in JUDGES) / len(JUDGES) if JUDGES[0] in trial else None


def recipe(run):
    return {"lr": run.train.lr, "args": run.args}


def with_recipe(run, given):
    return run.model_copy(update={"args": given["args"], "train": run.train.model_copy(update={"lr": given["lr"]})})


def key(params, run):
    """Names what a trial finds: the same only if training, its parameters, data and code, and judging are."""
    card = selfsup.data.tars.card_of(config.compose.SHARDS / run.data)
    seed, code = run.seeds[0], trained_by(run.method, json.dumps(run.encoder))
    what = [fingerprint(run, seed, card, code, Start(run, seed).origin())]
    what += [options(params, judge) for judge in JUDGES]
    return hashlib.sha256(json.dumps([*what, judged_by()], sort_keys=True).encode()).hexdigest()[:12]


@functools.lru_cache
def trained_by(method, encoder):
    """`code_hash`, read once for all trials. encoder: as JSON."""
    return code_hash(SimpleNamespace(method=method, encoder=json.loads(encoder)))


@functools.lru_cache
def judged_by():
    return [meaning((PACKAGE / f"evals/{name}.py").read_text(encoding="utf-8")) for name in ("__init__", *JUDGES)]


def options(params, judge):
    """Of a protocol's choosing half."""
    return {name: value for name, value in config.protocol(params, judge).items() if name != "bootstrap"}


def tuned(params):
    """The runs that have a choice and can be judged. Raises UserError if there are none."""
    found = []
    for run in params.runs.values():
        if run.method == FLOOR or run.method == CEILING and run.labels is None:  # with few labels it is a rival
            continue
        card = selfsup.data.tars.card_of(config.compose.SHARDS / run.data)
        if lacking := next(filter(None, (evals.unfit(judge, card) for judge in JUDGES)), None):
            print(f"{run.name} is not tuned: {lacking}")
        else:
            found.append(run)
    if not found:
        raise UserError(f"{params.experiment} has nothing to tune: bounds have no choice, and val needs labels")
    return found


class Table:
    """The trials of an experiment: which there are, what they found, what is chosen.

    only: names of the runs to tune; what the table has of others stays. Raises UserError for a run that cannot be."""

    def __init__(self, params, root=".", only=()):
        self.params, self.file = params, Path(root) / config.compose.RESULTS / params.experiment / "tune.json"
        before = artefacts.tuning(self.file)["runs"] if self.file.exists() else {}
        past = [trial for entry in before.values() for trial in entry["trials"]]
        self.results = {trial["key"]: trial for trial in past if score(trial) is not None}
        runs = {run.name: with_recipe(run, origin(run, before.get(run.name))) for run in tuned(params)}
        if unknown := sorted(set(only) - set(runs)):
            raise UserError(f"{', '.join(unknown)} cannot be tuned: {params.experiment} can tune {', '.join(runs)}")
        self.all = runs.values()  # by what they differ they are compared, whether they are tuned now or not
        self.runs = {name: run for name, run in runs.items() if not only or name in only or name in before}
        self.only = only or self.runs
        self.keys = {}

    def trials(self, name):
        """A run's trials so far, each with what it found if it is done."""
        run, scores, found = self.runs[name], [], []
        for _ in range(2):
            found = [self.known(run, trial) for trial in trials(recipe(run), second(run, self.all), scores)]
            scores = [each for each in map(score, found[:TRIALS - 1]) if each is not None]
        return found

    def known(self, run, trial):
        text = json.dumps([run.name, trial], sort_keys=True)
        if text not in self.keys:
            self.keys[text] = key(self.params, with_recipe(run, trial))
        found = self.results.get(self.keys[text], {})
        return {**trial, "key": self.keys[text], **{name: found[name] for name in (*JUDGES, "failed") if name in found}}

    def left(self):
        """What is to be done and can be now: (run, number) and what a process of its own needs to do it."""
        for name in self.only:
            for number, trial in enumerate(self.trials(name), 1):
                if score(trial) is None:
                    yield (name, number), {"name": name, "number": number, **trial}

    def done(self):
        """How many trials have been done, of those to do."""
        return sum(score(trial) is not None for name in self.only for trial in self.trials(name))

    def best(self, name):
        """The number of a run's best trial, from 1; None while some are to be done, or where all failed."""
        scores = [score(trial) for trial in self.trials(name)]
        if len(scores) < TRIALS or None in scores or max(scores) == -math.inf:
            return None
        return 1 + max(range(TRIALS), key=lambda i: scores[i])

    def add(self, trial):
        self.results[trial["key"]] = trial
        self.write()

    def content(self):
        return {"runs": {name: {"recipe": recipe(run), "trials": self.trials(name), "chosen": self.best(name)}
                         for name, run in self.runs.items()}}

    def write(self):
        """The table, and the page of it."""
        content = self.content()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        files.write(self.file, json.dumps(content, indent=1) + "\n")
        files.write(self.file.with_suffix(".md"), page(self.params, content["runs"]))


def origin(run, entry):
    """The recipe that a run is tuned from: its own, or if that was chosen by a tuning, the one before."""
    own = recipe(run)
    if not entry or not entry.get("chosen"):
        return own
    return entry["recipe"] if own == {name: entry["trials"][entry["chosen"] - 1][name] for name in own} else own


def told(trial, given):
    """In words, what a trial changes beside the rate."""
    return ", ".join(f"{name} {value}" for name, value in trial["args"].items() if given["args"].get(name) != value)


def found(trial):
    """In words, what a trial found."""
    if score(trial) is None:
        return "not done"
    return "failed" if "failed" in trial else f"kNN {trial['knn']:.1f}, linear {trial['linear']:.1f} on val"


def page(params, runs):
    """The table in Markdown."""
    lines = [f"# Trials of {params.experiment}", "",
             "| Run | Trial | Rate | Besides | kNN on val % | Linear on val % | Mean % | |",
             "| --- | ---: | ---: | --- | ---: | ---: | ---: | --- |"]
    for name, entry in runs.items():
        for number, trial in enumerate(entry["trials"], 1):
            done = score(trial) is not None and "failed" not in trial
            values = (*(trial[judge] for judge in JUDGES), score(trial)) if done else ()
            mark = "chosen" if number == entry["chosen"] else "" if done else found(trial)
            title, besides = name.removeprefix(f"{params.experiment}-"), told(trial, entry["recipe"])
            cells = [f"{value:.2f}" for value in values] or ["", "", ""]
            lines.append("| " + " | ".join([title, str(number), f"{trial['lr']:g}", besides, *cells, mark]) + " |")
    lines += ["", f"- Each run has {TRIALS} trials of its whole budget, with one seed: its rate, a third of it, three "
              "times it, and, at the best of these, a second value of its method's most sensitive argument; a fourth "
              "rate where there is none, or where the experiment compares runs by it.",
              "- Chosen is the highest mean of the accuracies by which kNN and the linear classifier choose, both on "
              "val: test is not read. The first trial is the recipe as it stood; of equals the first is taken.",
              "- Floor and ceiling have no choice. A run that is not here has the recipe that its file names."]
    return "\n".join(lines) + "\n"


def settle(table, conf="conf"):
    """Write the chosen recipes into conf/experiment/<experiment>.yaml, each with its trial -> how many runs changed."""
    path, changed = Path(conf, "experiment", f"{table.params.experiment}.yaml"), 0
    before = text = path.read_text(encoding="utf-8")
    for name, entry in table.content()["runs"].items():
        if (number := entry["chosen"]) is None:
            continue
        chosen, run = entry["trials"][number - 1], table.params.runs[name]
        values = {("args", key): edit.GONE for key in run.args if key not in chosen["args"]}
        values |= {("args", key): value for key, value in chosen["args"].items() if run.args.get(key) != value}
        if chosen["lr"] != run.train.lr:
            values["train", "lr"] = chosen["lr"]
        new = edit.run(path, text, name, values, f"trial {number} of {TRIALS}, {found(chosen)}")
        changed, text = changed + (new != text), new
    if text != before:
        files.write(path, text)
    return changed
