"""Arguments of methods and networks: each has a type and a range, which hold their defaults, and beyond which nothing is
built. Whatever they let through trains a step with finite numbers, or is refused by one sentence."""

import inspect
import math
import typing

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.methods.test_contract import ARGS, CARD, ENCODERS, begin_epoch, prepare, raw

from selfsup import config, methods, nets
from selfsup.config import checker, signature
from selfsup.errors import UserError
from selfsup.training import measure, optim, setup
from selfsup.training.step import Step

NAMES, NETS = methods.names(), nets.names()
TRAIN = {"images": 16, "batch": 8, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "warmup": 0.1, "clip": 1.0,
         "precision": "fp32", "threads": 1, "workers": 0, "reader": "auto", "checkpoint_every": 30}  # fmt: skip
SMALL = {"hidden": 16, "dim": 16, "prototypes": 12, "queue": 12, "permutations": 10, "counts": 16, "atoms": 16}
WRONG = [None, "", "x", "0.5", "false", True, 0, -1, -0.5, 1.5, 2, 10**13, -(10**30), 1e-30, 1e300, math.nan, math.inf, -math.inf,
         [], [1], ["a"], {}, {"a": 1}]  # fmt: skip
MOST = 12  # the largest integer that a step is made with: more is the same, and slow


def values(kind):
    """A strategy of values that a type names: its choices, the bounds of its range, and some within."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        base, bound = inner[0], {}
        for note in inner[1:]:
            bound |= {key: value for key, value in vars(note).items() if value is not None}
        low, high = bound.get("ge", bound.get("gt")), bound.get("le", bound.get("lt"))
        if base is int:
            return st.integers(low, min(high or MOST, max(low, MOST)))
        if base is float:
            return st.one_of(st.sampled_from([low, 0.5, 1.0, *([] if high is None else [high])]), st.floats(low, high))
        if base is str:
            return st.sampled_from(["class", "colour", "colours"])
        return st.lists(values(*typing.get_args(base)), min_size=2, max_size=2)
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin in (typing.Union, type(int | None)):
        return st.one_of(*map(values, inner))
    if kind is bool:
        return st.booleans()
    return st.none() if kind is type(None) else st.sampled_from(["crop", {"crop": [0.5, 1], "flip": 1}, ["none", {"grey": 1.0}]])


def entry(name, args=None, encoder=None, train=None):
    """What params.yaml would hold: one run of a method."""
    run = {"method": name, "data": "tiny", "seeds": [0], "args": {**args}, "encoder": encoder, "train": train or {}}
    return {"experiment": "tiny", "fetch": [], "encoder": {"name": "convnet", "width": 4}, "protocols": {}, "notes": {}, "claims": {},
            "annotation": {"seconds": 10, "wage": 15, "kinds": {}},
            "datasets": {"tiny": {"source": "scenes", "size": 32, "train": 32, "val": 8, "test": 8, "seed": 0, "max_bad": 0.0}},
            "train": TRAIN, "runs": {f"tiny-{name}": run}}  # fmt: skip


def trained(params):
    """Two steps of the only run of params, as the trainer makes them; every number there is, is finite."""
    params = checker.check("params.yaml", params)
    config.check(params)
    (run,) = params.runs.values()
    method = setup.build(run, 0, CARD)
    begin_epoch(method)
    optimizer = optim.build(method, run.train) if any(p.requires_grad for p in method.parameters()) else None
    step = Step(method, method, optimizer, run.train, 0, 2, method.after_step)
    for number in range(2 if optimizer else 0):
        out = step(number, prepare(method, raw(number)))
        for name, value in {**measure.scalars(out), **measure.spread_of(out)}.items():
            assert value.isfinite().all(), name


def arguments(name):
    """{argument: type} of a method, the views' included."""
    return {key: kind for key, (kind, _) in config.arguments(methods.load(name)).items()}


EVERY = [(name, key) for name in NAMES for key in arguments(name)]


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_of_any_argument_is_one_sentence_or_trains(data):
    name, key = data.draw(st.sampled_from(EVERY))
    wrong = data.draw(st.booleans())
    value = data.draw(st.sampled_from(WRONG) if wrong else values(arguments(name)[key]))
    own = arguments(name)
    args = {other: number for other, number in {**SMALL, **ARGS.get(name, {})}.items() if other in own}
    encoder = ENCODERS.get(name, {"name": "convnet", "width": 4})
    try:
        trained(entry(name, {**args, key: value}, encoder))
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) > 10
        assert not wrong or "lower train.lr" not in str(error)


@pytest.mark.parametrize("value", [None, "x", True, math.nan, -math.inf, [], {"a": 1}], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_a_value_of_no_kind_is_refused_and_every_key_named(name, value):
    wrong = {key: value for key, kind in arguments(name).items() if key != "augment" and not (
        kind is bool and value is True or value is None and type(None) in typing.get_args(kind))}  # fmt: skip
    own = {key: value for key in wrong if key in signature.takes("methods", name)}
    for args in filter(None, (own, {key: value for key in wrong if key not in own})):
        with pytest.raises(UserError) as error:
            config.check(checker.check("params.yaml", entry(name, args, {"name": "convnet"})))
        assert all(f"runs.tiny-{name}.args.{key}" in str(error.value) for key in args)


@settings(max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_of_any_networks_argument_is_one_sentence_or_trains(data):
    name = data.draw(st.sampled_from(NETS))
    takes = {"half": dict, **signature.takes("nets", name)} if name == "split" else signature.takes("nets", name)
    key = data.draw(st.sampled_from(sorted(takes)))
    small = {"width": 4, "dim": 16, "depth": 1, "heads": 2, "pixels": 4, "levels": 2, "half": {"name": "convnet", "width": 4}}
    kind = dict(inspect.signature(nets.network(name)).parameters)[key].annotation
    value = data.draw(st.one_of(st.sampled_from(WRONG), values(kind)))
    encoder = {"name": name, **{other: number for other, number in small.items() if other in takes}, key: value}
    try:
        trained(entry("rotation", {}, encoder))
    except UserError as error:
        assert "\n" not in str(error) and "lower train.lr" not in str(error)


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_has_a_type_that_holds_its_default(name):
    method = methods.load(name)
    known = config.arguments(method)
    kinds = {key: (signature.typed(kind), None) for key, (kind, _) in known.items()}
    assert inspect.Parameter.empty not in [kind for kind, _ in known.values()]
    own = {key: list(value) if isinstance(value, tuple) else value for key, (_, value) in known.items() if key != "augment"}
    signature.model(name, signature.Section, kinds)(**own)
    fields = {*vars(method.inputs)}  # an argument may be both: what the views are, and what the method makes of them
    assert {*known} - fields <= {*signature.takes("methods", name)} <= {*known}, "as the source text says"


@pytest.mark.parametrize("args, sentence", [
    ({"loss": "class"}, "args.loss should be 'classes' or 'l2', not 'class'; did you mean \"classes\"?"),
    ({"norm": "bacth"}, "args.norm should be 'batch' or 'group', not 'bacth'; did you mean \"batch\"?"),
    ({"temperature": 0}, "args.temperature should be greater than or equal to 0.001, not 0"),
    ({"temperature": "0.5"}, "args.temperature should be a valid number, not '0.5'"),
])  # fmt: skip
def test_sentences(args, sentence):
    with pytest.raises(UserError) as error:
        checker.check("params.yaml", entry("colorization", args, {"name": "convnet"}))
    assert sentence in str(error.value)


def test_one_norm_for_any_width():
    from selfsup.layers import norm_layer

    for channels, groups in ((1, 1), (6, 6), (8, 8), (10, 5), (11, 1), (12, 6), (32, 8), (48, 8)):
        norm = norm_layer("group", channels)
        assert norm.num_groups == groups and norm(torch.randn(2, channels, 3, 3)).isfinite().all()
