from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from selfsup import evals, nets
from selfsup.errors import UserError
from selfsup.evals import zero_shot

PROMPTS = ["some {}", "a {}", "a {} again"]


class Words(torch.nn.Module):
    """Text features of token ids (n, L): the sum of one vector a word, nothing for the padding 0."""

    def __init__(self, vectors):
        super().__init__()
        self.vectors = torch.nn.Parameter(vectors)

    def forward(self, ids):
        return (self.vectors[ids] * (ids > 0).unsqueeze(2)).sum(1)


@pytest.fixture
def parts(data):
    """Text features that know the classes' mean images, and a word ("some") that points all prompts another way."""
    words = ["[PAD]", *data.card["classes"], "a", "some", "again"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    data.tokenizer = tokenizer
    images = (data.train.images / 255.0 - 0.5) / 0.25
    vectors = torch.zeros(len(words), images[0].numel())
    for c in range(4):
        vectors[1 + c] = images[data.train.labels == c].flatten(1).mean(0)
    vectors[words.index("some")] = 5 * (vectors[2] - vectors[1])
    head = torch.nn.Linear(vectors.shape[1], vectors.shape[1], bias=False)
    torch.nn.init.eye_(head.weight)
    return {"image_head": head, "text": Words(vectors)}


def reference(features, texts):
    """Index of the text of largest cosine for each image, in loops."""
    cosines = [[np.dot(f, t) / np.linalg.norm(f) / np.linalg.norm(t) for t in texts] for f in features]
    return np.argmax(cosines, axis=1)


def test_equals_the_loops(encoder, data, parts):
    result = dict(evals.run("zero_shot", encoder, data, **parts, prompts=PROMPTS))
    unit, texts = [], {}
    for prompt in PROMPTS:
        rows = []
        for name in data.card["classes"]:
            ids = data.tokenizer.encode(prompt.format(name)).ids
            rows.append(sum(parts["text"].vectors[i].detach().numpy() for i in ids))
        texts[prompt] = rows
        unit.append([row / np.linalg.norm(row) for row in rows])
    accuracy = {}
    for name in ("val", "test"):
        split = getattr(data, name)
        features = (split.images.flatten(1).numpy() / 255.0 - 0.5) / 0.25
        for prompt, rows in {**texts, "ensemble": np.mean(unit, axis=0)}.items():
            right = reference(features, rows) == split.labels.numpy()
            accuracy[name, prompt] = pytest.approx(100 * right.mean(), abs=0.006)
    assert result["prompts"] == {prompt: accuracy["val", prompt] for prompt in PROMPTS}
    assert result["val_accuracy"] == max(result["prompts"].values())
    assert result["accuracy"] == accuracy["test", result["prompt"]]
    assert (result["ensemble"]["accuracy"], result["ensemble"]["val_accuracy"]) == (
        accuracy["test", "ensemble"], accuracy["val", "ensemble"])
    largest = data.test.labels.bincount().max().item() / len(data.test)  # uneven classes: who always says it is right so often
    assert result["chance"] == pytest.approx(100 * largest, abs=0.006) and result["low"] > 100 * largest > 25
    assert len(set(result["prompts"].values())) > 1       # the wording matters
    assert data.test.reads == 1


def test_the_choice_is_made_on_val_alone(encoder, data, parts):
    chosen = dict(evals.run("zero_shot", encoder, data, **parts, prompts=PROMPTS))
    data.test.labels = data.test.labels.roll(1)
    shuffled = dict(evals.run("zero_shot", encoder, data, **parts, prompts=PROMPTS))
    assert chosen["prompt"] == shuffled["prompt"] != "some {}" and chosen["prompts"] == shuffled["prompts"]


def test_prompts_of_different_length_do_not_change_each_other(data, parts):
    text = nets.build("text_transformer", vocabulary=data.tokenizer.get_vocab_size(), dim=16, heads=2)
    alone = zero_shot.encode(text, data.tokenizer, ["a class1"])
    beside = zero_shot.encode(text, data.tokenizer, ["a class1", "a class1 again a class2"])
    torch.testing.assert_close(alone[0], beside[0])


def test_a_prompt_without_a_place_for_the_class_is_an_error(encoder, parts):
    with pytest.raises(UserError, match='prompts: "a photo" has no {}'):
        list(evals.run("zero_shot", encoder, SimpleNamespace(), **parts, prompts=["a photo"]))


def test_numbers_are_no_class_names(encoder, data, parts):
    data.card = {**data.card, "classes": ["0", "1", "2", "3"]}
    data.shards = "data/shards/toy"
    with pytest.raises(UserError, match='data/shards/toy: its classes have numbers and no names, so that a prompt would say "some 0".*classes.txt'):
        evals.judge("zero_shot", encoder, data, **parts, prompts=PROMPTS)
