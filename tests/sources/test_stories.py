"""Generated stories: long enough, a topic that is not a thing's, and an order that no bag of words knows."""

import re
from collections import Counter

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from selfsup import data, shards
from selfsup.sources import stories
from selfsup.sources.scenes import describe


def words(text):
    return re.findall(r"\w+|[^\w\s]", text)


def test_stories_are_longer_than_a_window():
    texts = [sample["text"] for sample in stories.samples("train", 0, 600)]
    assert min(len(words(text)) for text in texts) > 64 and not any("{" in text or "|" in text for text in texts)
    assert len(set(texts)) == 600 and len({word for text in texts for word in words(text)}) > 150


def test_a_slice_equals_that_part_of_the_whole():
    whole = list(stories.samples("test", 0, 40, seed=3))
    assert list(stories.samples("test", 20, 30, seed=3)) == whole[20:30]
    assert whole[0] != next(stories.samples("test", 0, 1)) != next(stories.samples("val", 0, 1))


def test_exchanged_stories_have_the_same_words_elsewhere():
    s, draws = describe.describe("train", np.arange(50)), np.random.default_rng(0).random((50, 62))
    for i in range(50):
        told, exchanged = (stories.story(s, i, i % 6, order, iter(draws[i])) for order in (0, 1))
        assert Counter(words(told)[:62]) == Counter(words(exchanged)[:62]) and told != exchanged
        assert len(words(told)) == len(words(exchanged))


def test_bags_of_words_know_the_topic_and_not_the_order():
    train, test = (list(stories.samples(split, 0, n)) for split, n in (("train", 1500), ("test", 400)))
    # Of what is read: cut elsewhere, a last sentence with one thing and not yet the other would say which comes first.
    read = [[" ".join(words(sample["text"])[:62]) for sample in some] for some in (train, test)]
    bags = CountVectorizer().fit(read[0])
    x, y = map(bags.transform, read)

    def score(name):
        model = LogisticRegression(max_iter=500).fit(x, [sample[name] for sample in train])
        return model.score(y, [sample[name] for sample in test])

    assert score("label") > .95 and abs(score("order") - .5) < .1
    # Whether the class or the prop comes first says all.
    first = [next(word for word in words(sample["text"]) if word in describe.CLASSES + describe.PROPS) for sample in test]
    told = [int(word in describe.PROPS) for word in first]
    agree = np.mean([a == sample["order"] for a, sample in zip(told, test)])
    assert agree == 1


def test_topics_do_not_go_with_things():
    some = list(stories.samples("train", 0, 2000))
    table = np.zeros((10, len(stories.TOPICS)))
    for sample, label in zip(some, describe.labels("train", np.arange(2000))):
        table[label, sample["label"]] += 1
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    freedom = 9 * (len(stories.TOPICS) - 1)
    assert ((table - expected) ** 2 / expected).sum() < freedom + 4 * np.sqrt(2 * freedom)


def test_windows_of_64_tokens_are_full(tmp_path):
    spec = {"source": "stories", "train": 60, "val": 10, "test": 10, "seed": 0, "max_bad": 0}
    card = shards.write("toy", spec, tmp_path / "out", workers=1)
    assert card["size"] is None and card["columns"] == ["text", "label", "order"] and card["classes"] == list(stories.TOPICS)
    found = next(data.open(tmp_path / "out", "train", "resident", cache=tmp_path / "cache").in_order(60))
    assert found["text"].shape == (60, 64) and (found["text"] != 0).all() and set(found["order"].tolist()) == {0, 1}
