"""What params.yaml may hold. No value has a default here: all defaults stand in params.yaml, where DVC sees each change.

A key that came later than the experiments that do not name it is optional (None): absent, it changes no params.yaml.
"""

from typing import Any, Literal

from pydantic import Field

from ..arguments import Batch, Count, NotNegative, Pixels, Positive, Share, Text, Whole
from .signature import Section, typed

# pydantic's own kinds of the types that the parts use.
Batch, Count, NotNegative, Pixels, Positive, Share, Text, Whole = map(
    typed, (Batch, Count, NotNegative, Pixels, Positive, Share, Text, Whole))


class Dataset(Section):
    """What every data set has, beside the arguments of its source. `max_bad`: the share of unreadable samples above which
    the shard stage fails."""

    source: str
    max_bad: Share
    size: Pixels | None = None  # pixels a side, where the source has images
    limit: Count | None = None  # a part of the samples, for a trial
    fit: Literal["crop", "stretch", "pad"] | None = None  # how a picture becomes square; cropped unless said
    licence: Text | None = None
    tokens: Literal["pieces", "words", "characters"] | None = None  # what texts are cut into; pieces of words unless said
    concepts: list[Text] | None = None  # words of captions that say what is seen; scenes have their own


class Train(Section):
    """One run's training. `images` is the budget: images seen, the same unit for every method."""

    images: Count
    batch: Batch
    optimizer: Literal["adamw", "sgd", "lars", "larc"]
    lr: Positive
    weight_decay: NotNegative
    warmup: Share  # of the budget
    clip: NotNegative  # largest gradient norm; 0 does not clip
    precision: Literal["fp32", "bf16"]
    threads: typed(int, ge=1, le=1024)  # pinned, since the order of sums depends on it
    workers: typed(int, ge=0, le=1024) | Literal["auto"]  # processes that read; see data/workers.py
    reader: Literal["auto", "resident", "streaming"]
    checkpoint_every: Positive  # seconds
    judge_every: Count | None = None  # images between two looks at kNN on val
    decay_vectors: bool | None = None  # whether biases, norms and other vectors are decayed like matrices
    scale_lr: bool | None = None  # whether `lr` is that of a batch of 256, scaled by batch / 256
    accumulate: typed(int, ge=2, le=10**6) | None = None  # parts of a batch that are in memory one after the other
    capture: Literal["auto", "off"] | None = None  # on a GPU: whether a step is recorded once and replayed, as unless said


class Run(Section):
    """One entry of `runs`, with the defaults merged in."""

    name: str
    method: str
    data: str
    seeds: typed(list[Whole], min_length=1, distinct=True)
    encoder: dict[str, Any]  # "name" and the arguments of `nets.build`
    args: dict[str, Any]  # of the method's __init__, or fields of its `inputs`
    train: Train
    init: Text | None = None  # where the encoder starts: a run, an encoder folder, or "timm" for its pretrained weights
    from_: Text | None = Field(None, alias="from")  # the run whose encoders the method is given as `teacher`
    # How many labels the method and its judges may see; as a fraction (0.1, 1.0) a share of them.
    labels: Count | typed(float, gt=0, le=1) | None = None
    # How many labels of val choices may be made by: as many as of train (Oliver et al. 2018), or all, as unless said.
    val_labels: Literal["same", "all"] | None = None


class Annotation(Section):
    """What labels cost, for the report's axis of prices."""

    seconds: Positive  # a label takes
    wage: Positive  # dollars an hour
    kinds: dict[Text, Positive]  # what is labelled -> seconds, of other labels


class Several(Section):
    """Runs taken together: their mean, or the first less the second."""

    mean: typed(list[str], min_length=1) | None = None
    less: typed(list[str], min_length=2, max_length=2) | None = None


Pair = typed(list[Text], min_length=2, max_length=2)


class Expectation(Section):
    """What a claim expects to see; see verdicts.py for what `by` may name. One of: a run's measure higher than another's,
    above or below a number, or two measures that rank the claim's runs less alike than two seeds of one measure do."""

    higher: str | Several | None = None
    than: str | Several | None = None
    by: Text = "linear"
    than_by: Text | None = None
    ranked_apart: Pair | None = None
    above: float | None = None
    below: float | None = None
    margin: Positive | None = None  # the smallest difference that matters, in the measure's unit; see verdicts.margin


class Claim(Section):
    """What the lectures say, and what an experiment's runs should then show."""

    says: Text
    expect: typed(list[Expectation], min_length=1)
    figure: typed(list[Text | Pair], min_length=1)  # measures shown, each by itself or one against another
    runs: list[str] = []  # those it is about; all unless given
    margin_after_results: bool = False  # what the page has to say where a margin was named with the results in view


class Params(Section):
    experiment: Text
    fetch: list[Text]  # torchvision data sets to download to data/raw/<name>
    datasets: dict[str, Any]  # name -> Dataset with the arguments of its source
    size: Pixels | None = None  # pixels a side of all images, in place of what each data set says
    train: Train
    encoder: dict[str, Any]
    protocols: dict[str, Any]  # name -> the arguments of its `choose`, and bootstrap, runs, on
    runs: dict[str, Run]
    notes: dict[str, Text]  # run -> what the report should say of it, as why it is not above its floor
    claims: dict[str, Claim]  # of the lectures, which the runs check
    annotation: Annotation
    plan: dict[str, Any]  # what dvc.yaml goes through: see compose.py
