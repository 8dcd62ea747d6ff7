"""How a run came about, as its section of the page says it: from params, its encoder folders and its results alone."""

from selfsup import artefacts, config, evals
from selfsup.report.rows import named, options
from selfsup.report.table import quantity


def facts(params, row, root, out):
    """[(title, text)] of the Row; and [(text, address from the page in `out`)] of its files."""
    run, info = row.run, row.info
    found = [("Method", listed({"": run.method, **run.args})), ("Encoder", encoder(row)), ("Trained", trained(row)),
             ("Tuned", tuned(params, run, root)), ("Chosen on val", chosen(params, row)), ("Curves", row.curve),
             ("Made", made(row.cost)),
             ("Made from", info and f"data {info['data']['name']} {info['data']['hash'][:12]}, code {info['code'][:12]}")]
    return [(title, text) for title, text in found if text], files(row, root, out)


def listed(values):
    """{name: value} in words: simclr, hidden 512, temperature 0.1."""
    return ", ".join(" ".join(filter(None, (key.replace("_", " "), str(value)))) for key, value in values.items())


def encoder(row):
    """Its configuration and size, and where its weights started."""
    size, dim = row.mean("parameters"), row.info.get("dim")
    start = {key: value for key, value in (("starts from", row.run.init), ("with", row.run.from_)) if value}
    return ", ".join(filter(None, (named(row.run.encoder), size and f"{quantity(size)} parameters",
                                   dim and f"{dim} features", listed(start))))


def trained(row):
    """Its budget and recipe."""
    train, info = row.run.train, row.info
    seeds = f"seed{'s' * (len(row.run.seeds) > 1)} {', '.join(map(str, row.run.seeds))}"
    if info and not info["images"]:
        return f"not at all; {seeds}"
    parts = [f"on {info.get('images', train.images):,} images, {train.batch} a step",
             f"{train.optimizer}, rate {train.lr:g}" + " of a batch of 256" * bool(train.scale_lr),
             f"weight decay {train.weight_decay:g}",
             f"warm-up over the first {100 * train.warmup:g} %" if train.warmup else "no warm-up",
             f"gradients clipped at {train.clip:g}" if train.clip else "", train.precision,
             row.few and f"labels {row.labels}"]
    return f"{', '.join(filter(None, parts))}; {seeds}"


def tuned(params, run, root):
    """Which trial of `make tune` the recipe is, in words; "" where it is none."""
    file = root / "data/results" / params.experiment / "tune.json"
    entry = artefacts.tuning(file)["runs"].get(run.name) if file.exists() else None
    if not entry or not entry["chosen"]:
        return ""
    best = entry["trials"][entry["chosen"] - 1]
    if (best["lr"], best["args"]) != (run.train.lr, run.args):
        return ""
    found = ", ".join(f"{evals.load(key).title} {best[key]:g} %" for key in evals.names() if key in best)
    return f"rate and arguments by make tune on val: trial {entry['chosen']} of {len(entry['trials'])} ({found})"


def chosen(params, row):
    """What each protocol chose on val for the seeds, of values that params list: kNN: k 5 or 20, temperature 0.05."""
    found = []
    for protocol, section in options(params).items():
        seeds = row.results.get(protocol, {}).get("seeds", {}).values()
        asked = [name for name, candidates in section.items() if isinstance(candidates, list)]
        values = {name: [f"{seed[name]:g}" for seed in seeds if isinstance(seed.get(name), int | float)] for name in asked}
        if told := listed({name: " or ".join(dict.fromkeys(picks)) for name, picks in values.items() if picks}):
            found.append(f"{evals.load(protocol).title}: {told}")
    return "; ".join(found)


def made(cost):
    """When, by which commit, on what machine and with which versions its seeds were trained, of {seed: cost}; what is the
    same of all is said once. Of trainings that are older than these entries, on what device alone."""
    parts = {"date": [], "commit": [], "machine": [], "versions": []}
    for seed in cost.values():
        entry = seed.get("made", {})
        parts["date"].append(entry.get("date"))
        commit = entry.get("commit", "")
        parts["commit"].append(commit and f"commit {commit[:12]}{' with edits' * commit.endswith('+')}")
        count = seed.get("processes", 1)
        machine = entry.get("machine") or {"cpu": "CPU", "cuda": "GPU"}.get(seed.get("device"), seed.get("device"))
        parts["machine"].append(machine and f"{machine}{f' in {count} processes' * (count > 1)}")
        parts["versions"].append(listed(entry.get("versions", {})))
    told = [" or ".join(dict.fromkeys(filter(None, values))) for key, values in parts.items() if key != "date"]
    dates = sorted(filter(None, parts["date"]))
    return ", ".join(filter(None, (" to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "", *told)))


def files(row, root, out):
    """[(text, relative address)] of the run's folders that are there."""
    up = "../" * len(out.relative_to(root).parts)
    found = [(f"encoder of seed {seed}", folder.relative_to(root)) for seed, folder in row.folders.items()]
    results = config.results(row.run.name)
    found += [("results", results)] * (root / results).exists()
    return [(text, f"{up}{path.as_posix()}/") for text, path in found]
