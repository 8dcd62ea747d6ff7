"""What a data set's texts are cut into."""

import json

import pytest

from selfsup import shards, data
from selfsup.data import text

TEXTS = ["The red cat sat.", "The blue cat, the red dog.", "A dog\nsat – here."] * 4


@pytest.mark.parametrize("unit", text.VOCABULARY)
def test_tokens_are_counted_as_they_come(unit):
    tokens, longest, counts = text.train(TEXTS, unit)
    encoded = [tokens.encode(words).ids for words in TEXTS]
    tokens.no_padding()
    plain = [tokens.encode(words).ids for words in TEXTS]
    assert len(counts) == tokens.get_vocab_size() and longest == max(map(len, plain))
    assert counts == [sum(row.count(i) for row in plain) for i in range(len(counts))]
    assert all(row[0] == 1 and 2 in row for row in encoded) and counts[0] == 0 and counts[1] == counts[2] == 12
    assert [tokens.id_to_token(i) for i in range(4)] == list(text.SPECIAL)


def test_words_are_whole_and_characters_are_single():
    words, longest, _ = text.train(TEXTS, "words")
    assert words.encode("the red dog .").tokens == ["[START]", "the", "red", "dog", ".", "[END]"] and longest == 10
    assert words.encode("the green dog").ids[2] == 3, "unknown"
    characters, longest, counts = text.train(TEXTS, "characters")
    assert longest == 2 + max(map(len, TEXTS))
    for words in TEXTS:
        assert characters.decode(characters.encode(words).ids) == words
    assert characters.encode("T").ids != characters.encode("t").ids and counts[characters.token_to_id("d")] == 16


def test_a_data_set_says_what_its_tokens_are(tmp_path):
    spec = dict(source="scenes", size=8, train=20, val=4, test=4, seed=0, max_bad=0)
    plain = shards.write("toy", spec, tmp_path / "plain", workers=1)
    said = shards.write("toy", {**spec, "tokens": "characters"}, tmp_path / "characters", workers=1)
    assert plain["hash"] == shards.write("toy", {**spec, "tokens": "pieces"}, tmp_path / "pieces", workers=1)["hash"]
    assert said["hash"] != plain["hash"] and said["vocabulary"] < 60 < plain["vocabulary"]
    assert json.loads((tmp_path / "characters/card.json").read_text())["token_counts"] == said["token_counts"]
    split = data.open(tmp_path / "characters", "train", cache=tmp_path / "cache")
    assert split.tokenizer.get_vocab_size() == said["vocabulary"] == len(said["token_counts"])
