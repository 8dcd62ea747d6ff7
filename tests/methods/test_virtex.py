"""VirTex's two directions against loops, what a decoder must not see, and the search for a caption."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.methods.virtex import END, START, VirTex, beam_search

V, LENGTH = 14, 9


def build(norm="group", **args):
    torch.manual_seed(0)
    encoder = nets.build("convnet", width=4, norm=norm)
    return VirTex(encoder, {"vocabulary": V, "caption_length": LENGTH}, **{"width": 16, "heads": 2, **args}).eval()


def pairs(n=5, length=LENGTH):
    """Captions of 3 to 7 tokens, start and end included."""
    random = torch.Generator().manual_seed(1)
    captions = torch.randint(4, V, (n, length), generator=random)
    captions[:, 0] = START
    for row, size in enumerate(torch.arange(n) % 5 + 2):
        captions[row, size], captions[row, size + 1 :] = END, 0
    return {"image": torch.randn(n, 3, 16, 16, generator=random), "caption": captions}


def nll(method, image, tokens, decoder):
    """−log p of each token of one text but the first, by the decoder asked for one token after the other."""
    seen = method.head.projected(method.encoder.features(image[None]))
    out = []
    for t in range(1, len(tokens)):
        logits = method.head(seen, torch.tensor([tokens[:t]]), decoder)[0, -1].detach().double().numpy()
        out.append(np.log(np.exp(logits).sum()) - logits[tokens[t]])
    return out


def test_loss_against_loops():
    method, batch = build(), pairs()
    ahead, behind = [], []
    for image, row in zip(batch["image"], batch["caption"].tolist()):
        text = [token for token in row if token]
        ahead += nll(method, image, text, method.head.forwards)
        behind += nll(method, image, text[::-1], method.head.backwards)
    loss = method(batch)["loss"].item()
    assert loss == pytest.approx(np.mean(ahead) + np.mean(behind), rel=1e-4)
    shorter = {**batch, "caption": batch["caption"][:, : LENGTH - 1]}  # of padding alone
    assert method(shorter)["loss"].item() == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("way", ["forwards", "backwards"])
def test_a_token_is_told_from_those_before_it_and_the_image(way):
    method, batch = build(depth=2), pairs()
    decoder, text = getattr(method.head, way), batch["caption"].clamp(min=4)
    seen = method.head.projected(method.encoder.features(batch["image"]))
    before = method.head(seen, text, decoder)
    for t in (1, 4):
        other = text.clone()
        other[:, t:] = 4 + (other[:, t:] - 3) % (V - 4)
        after = method.head(seen, other, decoder)
        torch.testing.assert_close(after[:, :t], before[:, :t], atol=1e-6, rtol=1e-5)
        assert (after[:, t] - before[:, t]).abs().amax(1).min() > 1e-5
    assert (method.head(seen.roll(1, 0), text, decoder) - before).abs().amax((1, 2)).min() > 1e-6


def test_the_directions_share_all_but_their_decoders():
    method, batch = build(), pairs()
    seen, text = method.head.projected(method.encoder.features(batch["image"])), batch["caption"]
    F.cross_entropy(method.head(seen, text, method.head.backwards).flatten(0, 1), text.flatten()).backward()
    has = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name for name, _ in method.named_parameters()} - has == {
        name for name, _ in method.named_parameters() if "forwards" in name}
    assert not [name for name in method.state_dict() if name.startswith("head.output") and name != "head.output.bias"]


def table(n=2, words=6, seed=0):
    """Log-probabilities (n, words, words) of a word after another, of each of n texts."""
    return torch.randn(n, words, words, generator=torch.Generator().manual_seed(seed)).mul(1.5).log_softmax(2)


def test_the_widest_search_finds_the_likeliest_text():
    chances, longest, beams = table(), 5, 200

    def following(tokens):
        return chances.repeat_interleave(beams, 0)[torch.arange(len(tokens)), tokens[:, -1]]

    found = beam_search(following, 2, beams, longest)
    for text, chance in zip(found.tolist(), chances):
        def score(words):
            return sum(float(chance[a, b]) for a, b in itertools.pairwise((START, *words)))

        whole = [(*words, END) for size in range(longest - 1) for words in itertools.product((3, 4, 5), repeat=size)]
        cut = list(itertools.product((3, 4, 5), repeat=longest - 1))
        best = max(whole + cut, key=score)
        assert [token for token in text[1:] if token] == list(best)


def test_each_image_has_its_own_search():
    """The authors' code lays a batch's images and its beams out in different orders."""
    method, batch = build(beams=3), pairs()
    together = method.captions(batch["image"])
    for image, caption in zip(batch["image"], together):
        assert torch.equal(method.captions(image[None])[0], caption)
    assert together.shape == (5, LENGTH) and (together[:, 0] == START).all()


def test_learns_to_write_what_it_sees(fit):
    """A colour and its name, in a sentence."""
    method, random = build("batch", width=32), torch.Generator().manual_seed(3)
    colours = torch.tensor([[c & 1, c >> 1 & 1, c >> 2 & 1] for c in range(1, 7)]).float() * 2 - 1

    def batch(step):
        word = torch.randint(6, (32,), generator=random)
        image = colours[word][:, :, None, None] + 0.3 * torch.randn(32, 3, 16, 16, generator=random)
        words = torch.tensor([START, 4, 0, 5, END]).repeat(32, 1)
        words[:, 2] = 6 + word
        return {"image": image, "caption": words}

    fit(method, batch, 60, lr=1e-2)
    new = batch(0)
    method.eval()
    written = method.captions(new["image"][:8])
    assert (written[:, :5] == new["caption"][:8]).all(1).float().mean() > 0.7
