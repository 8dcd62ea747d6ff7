"""params.yaml is checked before any work, and every mistake in it is one sentence that says where."""

import copy
from pathlib import Path

import pytest
import yaml

from selfsup import config
from selfsup.errors import UserError
from tests import quick

ROOT = Path(__file__).parents[1]
PARAMS = quick.params()
PLAN = quick.plan()  # composed from the rest, of which the tests change something
RUN = "runs.quick-simclr"


def load(folder, change=lambda params: None):
    params = copy.deepcopy(PARAMS)
    change(params)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return config.load(folder / "params.yaml")


def setting(path, value):
    """A change of params that sets the key at `path`, its parts parted by dots."""

    def change(params):
        *parents, last = path.split(".")
        for name in parents:
            params = params[name]
        params[last] = value

    return change


def without(path):
    def change(params):
        *parents, last = path.split(".")
        for name in parents:
            params = params[name]
        del params[last]

    return change


def test_the_chosen_params_are_right():
    config.check(config.load(ROOT / "params.yaml"))


def test_runs_come_with_the_defaults_merged_in(tmp_path):
    def change(params):
        params["runs"]["quick-simclr"] |= {"train": {"lr": 0.5}, "encoder": {"width": 8}, "args": {"temperature": 0.2}}

    params = load(tmp_path, change)
    run = config.run(params, "quick-simclr")
    assert (run.name, run.method, run.data, run.seeds) == ("quick-simclr", "simclr", "scenes", [0])
    assert run.train.lr == 0.5 and run.train.batch == params.train.batch
    assert run.encoder == {**params.encoder, "width": 8} and run.args == {"temperature": 0.2}


def test_another_encoder_takes_nothing_from_the_default_one(tmp_path):
    run = config.run(load(tmp_path, setting(f"{RUN}.encoder", {"name": "vit", "depth": 2})), "quick-simclr")
    assert run.encoder == {"name": "vit", "depth": 2}


def test_numbers_as_dvc_reads_them(tmp_path):
    text = yaml.safe_dump(PARAMS).replace(f"lr: {PARAMS['train']['lr']}", "lr: 1e-3")
    (tmp_path / "params.yaml").write_text(text)
    assert config.load(tmp_path / "params.yaml").train.lr == 0.001


def test_paths_carry_the_experiment():
    assert config.encoders("quick-moco-v1") == Path("data/encoders/quick/quick-moco-v1")
    assert config.results("quick-moco-v1") == Path("data/results/quick/quick-moco-v1")


def test_protocol_arguments(tmp_path):
    options = config.protocol(load(tmp_path), "zero_shot")
    assert set(options) == {"prompts", "bootstrap"}


BAD = [  # a change of params -> what the sentence says
    (setting("expriment", "quick"), 'unknown key "expriment"; did you mean "experiment"?'),
    (without("protocols"), "the key protocols is missing"),
    (setting("experiment", "my-own"), 'experiment "my-own"'),
    (setting("fetch", "CIFAR10"), "fetch should be a valid list"),
    (setting("train", None), "train should be a mapping"),
    (setting("train.batchs", 1), 'unknown key "batchs" in train; did you mean "batch"?'),
    (without("train.lr"), "the key train.lr is missing"),
    (setting("train.lr", "fast"), "train.lr should be a valid number, not 'fast'"),
    (setting("train.lr", 0), "train.lr should be greater than 0"),
    (setting("train.lr", float("nan")), "train.lr should be a finite number"),
    (setting("train.batch", "256"), "train.batch should be a valid integer, not '256'"),
    (setting("train.batch", True), "train.batch should be a valid integer, not True"),
    (setting("train.images", -1), "train.images should be greater than"),
    (setting("train.optimizer", "adam"), "train.optimizer should be 'adamw'"),
    (setting("train.scale_lr", 256), "train.scale_lr should be a valid boolean"),
    (setting("train.accumulate", 1), "train.accumulate should be greater than or equal to 2"),
    (setting(f"{RUN}.train", {"batch": 100, "accumulate": 3}), "train.batch, 100, cannot be cut into 3 parts"),
    (setting(f"{RUN}.train", {"batch": 8, "accumulate": 8}), "8 parts of one size and at least 2 images"),
    (setting("train.precision", "fp16"), "train.precision should be 'fp32'"),
    (setting("encoder", {"width": 32}), "encoder should name an encoder"),
    (setting("datasets.scenes.sizes", 32), 'unknown key "sizes" in datasets.scenes; did you mean "size"?'),
    (setting("datasets.scenes.source", "scene"), 'no source "scene"; did you mean "scenes"?'),
    (without("datasets.scenes.source"), "datasets.scenes.source is missing"),
    (setting("datasets.scenes.max_bad", 2), "datasets.scenes.max_bad should be less than 1"),
    (setting("datasets.my scenes", {}), "the name datasets.my scenes"),
    (setting("protocols.knn.ks", [1]), 'unknown key "ks" in protocols.knn; did you mean "k"?'),
    (setting("protocols.knn.k", []), "protocols.knn.k should not be empty"),
    (setting("protocols.knn.k", [5, "a"]), "protocols.knn.k.1 should be a valid integer"),
    (setting("protocols.linear", 3), "protocols.linear should be a mapping"),
    (setting("protocols.liner", {}), 'unknown key "liner" in protocols; did you mean "linear"?'),
    (setting("protocols.zero_shot.prompts", []), "protocols.zero_shot.prompts should not be empty"),
    (setting("protocols.zero_shot.runs", {"quick-clp": "scenes"}), 'no run "quick-clp"; did you mean "quick-clip"?'),
    (setting("protocols.zero_shot.runs", {"quick-clip": "scene"}), 'no data set "scene"; did you mean "scenes"?'),
    (setting("protocols.low_shot.runs", {"quick-clp": "scenes"}), 'no run "quick-clp"; did you mean "quick-clip"?'),
    (setting("protocols.layerwise.on", ["scene"]), 'protocols.layerwise.on: there is no data set "scene"'),
    (setting(f"{RUN}.init", "quick-moc"), f'{RUN}.init: there is no run "quick-moc"; did you mean "quick-moco"?'),
    (setting(f"{RUN}.from", "quick-simclr"), f"{RUN}.from should be another run"),
    (setting(f"{RUN}.labels", 0), f"{RUN}.labels"),
    (setting(f"{RUN}.labels", 1.5), f"{RUN}.labels"),
    (setting("datasets.scenes.imbalance", 0.5), "datasets.scenes.imbalance should be greater than or equal to 1"),
    (setting("datasets.scenes.fit", "squeeze"), "datasets.scenes.fit should be 'crop', 'stretch' or 'pad'"),
    (setting("datasets.scenes.root", "x"), 'unknown key "root" in datasets.scenes'),
    (setting("protocols.low_shot.shares", [0.1, 0]), "protocols.low_shot.shares.1 should be greater than 0"),
    (setting("protocols.low_shot.shares", [40, 1.5]), "protocols.low_shot.shares.1 should be less than or equal to 1"),
    (setting("protocols.low_shot.shares", [0.1, 0.1]), "protocols.low_shot.shares should not name a value twice"),
    (setting("protocols.low_shot.finetune.ls", [1]), 'unknown key "ls" in protocols.low_shot.finetune; did you mean "lr"'),
    (setting("protocols.low_shot.finetune.images", 9), "protocols.low_shot.finetune.images, 9, is less than one batch"),
    (setting("protocols.finetune.images", 9), "protocols.finetune.images, 9, is less than one batch"),
    (setting("protocols.finetune.lr", 0.1), "protocols.finetune.lr should be a valid list"),
    (setting("protocols.retrieval.k", [0]), "protocols.retrieval.k.0 should be greater than or equal to 1"),
    (without("annotation.wage"), "the key annotation.wage is missing"),
    (setting("annotation.wage", 0), "annotation.wage should be greater than 0"),
    (setting("annotation.kinds.box", "ten"), "annotation.kinds.box should be a valid number"),
    (setting("runs", []), "runs should be a mapping"),
    (setting("runs.simclr", PARAMS["runs"]["quick-simclr"]), 'runs.simclr should be named "quick-…"'),
    (setting(RUN, None), f"{RUN} should be a mapping"),
    (without(f"{RUN}.method"), f"the key {RUN}.method is missing"),
    (setting(f"{RUN}.method", "simcrl"), 'no method "simcrl"; did you mean "simclr"?'),
    (setting(f"{RUN}.method", "base"), 'no method "base"'),
    (setting(f"{RUN}.data", "scene"), 'no data set "scene"; did you mean "scenes"?'),
    (setting(f"{RUN}.seed", 0), f'unknown key "seed" in {RUN}; did you mean "seeds"?'),
    (setting(f"{RUN}.seeds", []), f"{RUN}.seeds should not be empty"),
    (setting(f"{RUN}.seeds", [0, 0]), f"{RUN}.seeds should not name a value twice"),
    (setting(f"{RUN}.train", {"lrr": 1}), f'unknown key "lrr" in {RUN}.train; did you mean "lr"?'),
    (setting(f"{RUN}.train", 3), f"{RUN}.train should be a mapping"),
    (setting("size", 0), "size should be"),
    (setting("size", "large"), "size should be"),
    (setting(f"{RUN}.encoder", {"name": 3}), f"{RUN}.encoder should name an encoder"),
]


@pytest.mark.parametrize("change, words", BAD, ids=[words for _, words in BAD])
def test_a_mistake_is_one_sentence(tmp_path, change, words):
    with pytest.raises(UserError) as error:
        load(tmp_path, change)
    assert words in str(error.value) and str(error.value).startswith(str(tmp_path / "params.yaml"))


@pytest.mark.parametrize("text, words", [
    ("train: [1\nruns: 2", "line 2"),
    ("experiment: quick\nexperiment: other", 'line 2: the key "experiment" is given twice'),
    ("", "should hold the keys experiment, fetch"),
    ("- experiment", "should hold the keys experiment, fetch"),
    ("\tx: 1", "line 1"),
    (b"\xff\xfe\x00", "not a YAML text file"),
])
def test_a_file_that_is_no_params_file(tmp_path, text, words):
    (tmp_path / "params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=words):
        config.load(tmp_path / "params.yaml")


def test_unknown_run_and_protocol(tmp_path):
    params = load(tmp_path)
    with pytest.raises(UserError, match='no run "quick-simcl" in experiment quick; did you mean "quick-simclr"'):
        config.run(params, "quick-simcl")
    with pytest.raises(UserError, match='no protocol "kn" in params; did you mean "knn"'):
        config.protocol(params, "kn")


@pytest.mark.parametrize("args, sentence", [
    ({"augmnt": "crop"}, 'no argument "augmnt"; did you mean "augment"'),
    ({"columns": ["image"]}, 'no argument "columns"'),
    ({"count": 3}, 'no argument "count"'),
    ({"augment": "moco_v3"}, 'unknown augmentation "moco_v3"; did you mean "moco_v'),
])  # fmt: skip
def test_args_are_held_against_the_views(tmp_path, args, sentence):
    config.check(load(tmp_path, setting(f"{RUN}.args", {"augment": "moco_v1"})))
    with pytest.raises(UserError, match=f"runs.quick-simclr.args.*{sentence}"):
        config.check(load(tmp_path, setting(f"{RUN}.args", args)))


def test_args_are_held_against_the_method(tmp_path):
    params = load(tmp_path, setting(f"{RUN}.args", {"temprature": 0.2}))
    with pytest.raises(UserError, match='runs.quick-simclr.args.*no argument "temprature"; did you mean "temperature"'):
        config.check(params)


def test_the_views_of_a_judge_are_views(tmp_path):
    where = "protocols.low_shot.finetune.augment"
    config.check(load(tmp_path, setting(where, {"crop": [0.6, 1.0], "flip": 0.5})))
    with pytest.raises(UserError, match=f'{where}: unknown field "flp"; did you mean "flip"'):
        config.check(load(tmp_path, setting(where, {"flp": 0.5})))


def test_all_mistakes_at_once(tmp_path):
    def change(params):
        params["train"] = {**params["train"], "batchs": 1}
        params["runs"]["quick-moco"] = {"method": "mocco", "data": "scenes"}

    with pytest.raises(UserError) as error:
        load(tmp_path, change)
    for words in ('unknown key "batchs" in train', "the key runs.quick-moco.seeds is missing", "2 mistakes"):
        assert words in str(error.value)


# The plan


def planned(tmp_path, change=lambda params: None):
    return load(tmp_path, change).plan


def test_the_committed_plan_is_composed_from_the_rest(tmp_path):
    assert planned(tmp_path) == PLAN


def test_a_plan_that_does_not_fit_is_refused(tmp_path):
    def change(params):
        params["plan"] = copy.deepcopy(PLAN)
        params["train"]["lr"] = 0.5

    with pytest.raises(UserError, match="edited by hand .* run `make params`"):
        load(tmp_path, change)


def paths(plan):
    return [value for item in plan["pretrain"].values() for key, value in item.items() if key != "run"] + [
        item[key] for item in plan["shard"].values() for key in ("code", "root")]


@pytest.mark.parametrize("path", sorted(set(paths(PLAN))))
def test_every_path_of_the_plan_exists(path):
    assert (ROOT / path).exists()


def test_items_name_the_files_of_their_own_parts(tmp_path):
    split = {"name": "split", "half": {"name": "convnet", "width": 8}}

    def change(params):
        params["runs"]["quick-simclr"] |= {"encoder": split, "init": "quick-moco", "from": "quick-clip"}
        params["runs"]["quick-moco"] |= {"encoder": {"name": "resnet10t"}, "init": "timm"}

    plan = planned(tmp_path, change)["pretrain"]
    nets = "ssl/selfsup/nets"
    simclr, moco = plan["quick-simclr"], plan["quick-moco"]
    assert (simclr["method"], simclr["encoder"], simclr["inner"]) == (
        "ssl/selfsup/methods/simclr.py", f"{nets}/split.py", f"{nets}/convnet.py")
    assert (simclr["start"], simclr["teacher"]) == ("data/encoders/quick/quick-moco", "data/encoders/quick/quick-clip")
    assert {moco[key] for key in ("encoder", "inner", "start", "teacher")} == {f"{nets}/timm.py"}


def test_who_is_judged_on_what(tmp_path):
    def change(params):
        params["datasets"]["other"] = params["datasets"]["scenes"]
        params["protocols"]["knn"]["on"] = ["other"]
        params["protocols"]["zero_shot"]["runs"] = {"quick-clip": ["scenes", "other"]}
        params["runs"]["quick-moco"]["labels"] = 250
        params["protocols"]["adaptation"]["runs"] = {"quick-moco": "other"}

    plan = planned(tmp_path, change)
    pair = plan["adaptation"].pop("quick-moco--other")
    assert (pair["data"], pair["source"]) == ("other", "scenes") and not plan["adaptation"]
    assert not [item for items in plan.values() for item in items.values() if "source" in item]  # of no other protocol
    assert set(plan["knn"]) == {*PARAMS["runs"], *(f"{name}--other" for name in PARAMS["runs"])}
    assert set(plan["zero_shot"]) == {"quick-clip", "quick-clip--other"}
    own, other = plan["knn"]["quick-moco"], plan["knn"]["quick-moco--other"]
    assert (own["data"], own["results"], own["labels"]) == ("scenes", "data/results/quick/quick-moco", 250)
    assert (other["data"], other["results"]) == ("other", "data/results/quick/quick-moco/other")
    assert own["options"] == {key: value for key, value in PARAMS["protocols"]["knn"].items()} and "on" not in own["options"]
    assert "labels" not in plan["knn"]["quick-clip"]


def test_a_key_that_comes_later_changes_no_plan(monkeypatch, tmp_path):
    """An optional key of a run, of its training and of a protocol, as later issues of the schema bring them."""
    from pydantic import create_model

    from selfsup.config import checker, schema

    later = {"later": (int | None, None)}
    train = create_model("Train", __base__=schema.Train, **later)
    monkeypatch.setattr(checker, "Train", train)
    monkeypatch.setattr(checker, "Run", create_model("Run", __base__=schema.Run, train=(schema.Train, ...), **later))
    monkeypatch.setitem(checker.JUDGED, "later", (int, None))
    assert planned(tmp_path) == PLAN


def test_a_teacher_is_asked_for_by_methods_that_have_one(tmp_path):
    with pytest.raises(UserError, match="runs.quick-simclr.from: method simclr has no use for another run's encoder"):
        config.check(load(tmp_path, setting(f"{RUN}.from", "quick-moco")))
