"""From the versioned files to MLflow: encoder folders, results and dvc.lock say all that it shows."""

import hashlib
import os
from pathlib import Path
from statistics import fmean

from selfsup import artefacts, config, encoder
from selfsup.errors import UserError, refuse_conflict
from selfsup.tracking import names, runs as mlruns, store, view


def sync(params, runs=None, root="."):
    """Bring MLflow up to date with the files of `runs` (a name, several, or all found); returns how many it then holds.

    Adds what is missing and nothing twice. Raises UserError, one sentence, when the store cannot be reached.
    """
    if os.environ.get("SELFSUP_TRACKING") == "off":
        return 0
    root = Path(root).resolve()
    if runs is None:
        runs = sorted(folder.name for folder in (root / "data/encoders").glob("*/*") if folder.is_dir())
    found = {name: sorted((root / config.encoders(name)).glob("*/encoder.json"))
             for name in ([runs] if isinstance(runs, str) else runs)}
    found = {name: files for name, files in found.items() if files}
    if not found:
        return 0
    hashes, opened = _dvc_hashes(root / "dvc.lock"), {}
    with store.client(root) as client:
        for name, files in found.items():
            md5 = hashes.get(str(config.encoders(name)))
            with store.lock(root):  # for each run anew, so that a training which ends waits for one alone
                of = params.experiment if name in params.runs else name.partition("-")[0]
                experiment, judged = opened.setdefault(of, (mlruns.experiment(client, root, of), set()))
                for seeds in _trainings(files):
                    judged |= _complete(client, experiment, root, name, seeds, md5, _options(params))
        with store.lock(root):
            for of, (experiment, judged) in opened.items():
                view.shape(client, experiment, of, judged)
                if of == params.experiment:
                    view.attach(client, experiment, root, of)
    return len(found)


def _options(params):
    """protocol -> names of the hyper-parameters that it chooses on val: those of which params give it several."""
    return {name: {key.rpartition(".")[2] for key, value in names.flat(options.model_dump(), ".") if isinstance(value, list)}
            for name, options in params.protocols.items()}


def _trainings(files):
    """encoder.json of each seed of a run -> [{folder: contents}], one unless somebody mixed several trainings."""
    found = {}
    for file in files:
        info = names.full(artefacts.encoder(file.parent, *artefacts.TRAINED))
        found.setdefault(names.fingerprint(names.whole(info)), {})[file.parent] = info
    return found.values()


def _complete(client, experiment, root, name, seeds, md5, options):
    """Make or complete the MLflow run of one training, and nested in it those of its seeds, {folder: encoder.json}. Returns
    the names of its accuracies."""
    results = _results(root / config.results(name))
    cost = results.get("cost", {}).get("seeds", {})
    seconds = {str(info["seed"]): cost.get(str(info["seed"]), {}).get("seconds") or 0 for info in seeds.values()}
    info = names.whole(next(iter(seeds.values())))
    parent = mlruns.open_run(client, experiment, root, info, age=sum(seconds.values()))
    # Results of other seeds than these are of a training before this one, or of one mixed from several.
    valid = {key: content for key, content in results.items() if content.get("seeds", {}).keys() <= seconds.keys()}
    summaries = {key: _mean(content.get("seeds", {})) if key == "cost" else _summary(content) for key, content in valid.items()}
    metrics, tags = names.finals(summaries)
    picked = {}
    for folder, info in seeds.items():
        seed = str(info["seed"])
        own, chosen = names.chosen({key: content.get("seeds", {}).get(seed, {}) for key, content in results.items()}, options)
        row = mlruns.open_run(client, experiment, root, info, parent, seconds[seed], chosen)
        _complete_seed(client, row, folder, info, own, seconds[seed], md5)
        if row.info.status != "FINISHED":
            client.set_terminated(row.info.run_id)
        for key, value in chosen.items():
            picked.setdefault(f"selfsup.{key}", {})[value] = None
    tags |= {key: ", ".join(values) for key, values in picked.items()}  # not a parameter, since a seed more may change it
    _log(client, parent, metrics, tags | _origin(info))
    mlruns.settle(client, experiment, parent)
    return {f"{key}_accuracy" for key in summaries} & metrics.keys()


def _complete_seed(client, row, folder, info, results, seconds, md5):
    encoder.vouch(folder)
    curves = [file for file in (folder / "history.jsonl", folder / "judged.jsonl") if file.exists()]
    metrics, tags = names.finals(results)
    tags |= _origin(info) | {
        "selfsup.encoder": _sha256(folder / "weights.safetensors"),
        "selfsup.history": _sha256(*curves),
        "selfsup.pictures": _sha256(*sorted(folder.glob("pictures/*.png"))),
    }
    have = row.data.tags
    if have.get("selfsup.history") != tags["selfsup.history"]:
        known, start = mlruns.known(client, row), row.info.start_time
        points = names.points(line for file in curves for line in artefacts.rows(file))
        mlruns.log(client, row, [point for point in points if (point[0], point[2]) not in known],
                   when=lambda images: start + 1000 * seconds * images / max(info["images"], 1))
    if have.get("selfsup.pictures") != tags["selfsup.pictures"] and (folder / "pictures").is_dir():
        client.log_artifacts(row.info.run_id, str(folder / "pictures"), "pictures")
    mlruns.register(client, row, info, tags["selfsup.encoder"], md5)
    _log(client, row, metrics, tags)  # last: these tags say that all the above is there


def _log(client, row, metrics, tags):
    """What of these an MLflow run does not hold yet. Final figures stand at step 0 alone, by which MLflow draws them as bars,
    a run beside the other; where an earlier version of this code put them at a later step, there, as the latest is shown."""
    points = []
    for key, value in metrics.items():
        have = row.data.metrics.get(key)
        if have != value:
            before = [] if have is None else client.get_metric_history(row.info.run_id, key)
            points.append((key, float(value), max((point.step for point in before), default=0)))
    mlruns.log(client, row, points, tags={key: value for key, value in tags.items() if row.data.tags.get(key) != value})


def _origin(info):
    return {"selfsup.code": info["code"], "selfsup.data": info["data"]["hash"]}


def _results(folder):
    """Result files of a run by protocol, {"knn": …}, and those on another data set under <data>_<protocol>."""
    files = {file.stem: file for file in sorted(folder.glob("*.json"))}
    files |= {f"{file.parent.name}_{file.stem}": file for file in sorted(folder.glob("*/*.json"))}
    return {key: artefacts.costs(file) if key == "cost" else artefacts.result(file) for key, file in files.items()}


def _summary(content):
    """What a protocol says of all seeds together; nothing where it was skipped."""
    return {key: value for key, value in content.items() if key not in ("run", "protocol", "seeds")}


def _mean(seeds):
    """{seed: values} -> the mean of every number, to two decimals, and what is no number if the seeds agree on it."""
    rows, mean = [dict(names.flat(values, separator="_")) for values in seeds.values()], {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        if all(map(names.number, values)):
            mean[key] = round(fmean(values), 2)
        elif values.count(values[0]) == len(values):
            mean[key] = values[0]
    return mean


def _dvc_hashes(path):
    """Path of an output -> its hash, from dvc.lock."""
    if not path.exists():
        return {}
    import yaml

    text = path.read_text()
    refuse_conflict(path, text)
    try:
        stages = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _sha256(*paths):
    """Of one file the usual SHA-256; of several, over their names and bytes."""
    digest = hashlib.sha256()
    for path in paths:
        if len(paths) > 1:
            digest.update(path.name.encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()
