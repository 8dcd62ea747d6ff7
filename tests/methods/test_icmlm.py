"""ICMLM: one concept word hidden in each caption, told with the image and without."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.core import rng
from selfsup.errors import UserError
from selfsup.methods.icmlm import ICMLM

V, CONCEPTS = 16, [6, 7, 8, 9, 10, 11]
CARD = {"vocabulary": V, "caption_length": 8, "concepts": CONCEPTS}
COLOURS = torch.tensor([[c & 1, c >> 1 & 1, c >> 2 & 1] for c in range(1, 7)]).float() * 2 - 1


def build(**args):
    torch.manual_seed(0)
    return ICMLM(nets.build("convnet", width=4, norm="group"), CARD, **{"dim": 16, "depth": 1, "heads": 2, **args})


def pairs(n=12, seed=0):
    """[start] a COLOUR thing CONCEPT [end], of an image of that colour; in every fourth caption there is no concept."""
    random = torch.Generator().manual_seed(seed)
    colour = torch.randint(6, (n,), generator=random)
    caption = torch.tensor([1, 4, 0, 5, 0, 2, 0, 0]).repeat(n, 1)
    caption[:, 2], caption[:, 4] = 6 + colour, 6 + torch.randint(6, (n,), generator=random)
    caption[3::4, 2] = caption[3::4, 4] = 12
    image = COLOURS[colour][:, :, None, None] + 0.3 * torch.randn(n, 3, 16, 16, generator=random)
    return {"image": image, "caption": caption, "key": rng.key(seed, torch.arange(n))}


def test_one_concept_of_each_caption_is_hidden_and_nothing_else():
    method, batch = build(), pairs(400)
    hidden, place, there = method.hidden(batch["caption"], batch["key"])
    changed = hidden != batch["caption"]
    has = torch.isin(batch["caption"], torch.tensor(CONCEPTS)).any(1)
    assert torch.equal(there, has) and torch.equal(changed.sum(1), has.long())
    assert (hidden[changed] == V).all() and torch.isin(batch["caption"][changed], torch.tensor(CONCEPTS)).all()
    assert torch.equal(changed.float().argmax(1)[has], place[has])
    assert 0.4 < (place[has] == 2).float().mean() < 0.6, "either of two"
    again = method.hidden(batch["caption"].flip(0), batch["key"].flip(0))[0]
    assert torch.equal(again.flip(0), hidden), "a sample's own"
    assert not torch.equal(method.hidden(batch["caption"], rng.key(1, batch["key"]))[0], hidden)


def test_loss_against_loops():
    method, batch = build(tags=0.5), pairs()
    logits, target, there, tags = (value.detach().double().numpy() for value in method.guessed(batch))
    words = [np.log(np.exp(logits[n]).sum()) - logits[n, int(target[n])] for n in range(12) if there[n]]
    shares = []
    for n, row in enumerate(batch["caption"].tolist()):
        for k, concept in enumerate(CONCEPTS):
            p = 1 / (1 + np.exp(-tags[n, k]))
            shares.append(-np.log(p if concept in row else 1 - p))
    out = method(batch)
    assert len(words) == 9 and out["word_loss"].item() == pytest.approx(np.mean(words), rel=1e-5)
    assert out["loss"].item() == pytest.approx(np.mean(words) + 0.5 * np.sum(shares) / 12, rel=1e-5)


def test_the_hidden_word_teaches_the_image_encoder_and_is_not_read():
    method, batch = build(tags=0), pairs()
    method(batch)["loss"].backward()
    assert all(p.grad.any() for p in method.encoder.parameters())
    method.eval()
    hidden, place, there = method.hidden(batch["caption"], batch["key"])
    other = batch["caption"].scatter(1, place[:, None], 6 + (batch["caption"].gather(1, place[:, None]) - 5) % 6)
    again = torch.where(there[:, None], other, batch["caption"])
    torch.testing.assert_close(method.guessed({**batch, "caption": again})[0], method.guessed(batch)[0])


def test_the_image_tells_what_the_words_do_not(fit):
    """Of the colour the other words say nothing, of the concept neither they nor the image."""
    said = {}
    for image in (True, False):
        method = build(image=image)
        fit(method, lambda step: pairs(32, step), 100, lr=1e-2)
        held = pairs(200, 999)
        said[image] = method.eval()(held)
        if image:
            moved = method({**held, "image": held["image"].roll(1, 0)})["word_loss"]
    assert said[True]["accuracy"] > said[False]["accuracy"] + 0.2, said
    assert said[True]["accuracy"] < 0.75 and said[False]["accuracy"] < 0.3, "what cannot be known is not"
    assert moved > said[True]["word_loss"] + 0.2, "with another's image"


def test_data_that_name_no_concepts_are_one_sentence():
    with pytest.raises(UserError, match="list them as its `concepts`"):
        ICMLM(nets.build("convnet", width=4), {"vocabulary": 9, "caption_length": 5})
