"""Masked tokens: the loss over the chosen ones alone, by loops, and the guess it is held against."""

import math

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.core import rng
from selfsup.inputs.tokens import masked
from selfsup.methods.masked_token import MaskedToken

V = 20


def build(**args):
    torch.manual_seed(0)
    encoder = nets.build("token_transformer", vocabulary=V, length=16, dim=16, depth=1, heads=2)
    return MaskedToken(encoder, {"vocabulary": V}, **args)


def batch(n=12, seed=0):
    text = torch.randint(4, V, (n, 14), generator=torch.Generator().manual_seed(seed))
    text[:, 0], text[:, 11] = 1, 2
    text[:, 12:] = 0
    text[0, 2:] = torch.tensor([2, *[0] * 11])
    return {"text": text, "key": rng.key(seed, torch.arange(n))}


@pytest.mark.parametrize("args", [{}, {"share": 0.5}, {"share": 0.5, "most": 2}])
def test_loss_against_loops(args):
    """All places' logits, of which the loss sees the chosen ones; what of them stayed as it was counts, too."""
    method, data = build(**args), batch()
    hidden, chosen = masked(data["text"], data["key"], V, args.get("share", 0.15), args.get("most", 20))
    states = method.encoder.states(hidden)[-1]
    logits = method.output(method.head(states), method.encoder.text.embed.weight).detach().double().numpy()
    losses, truth = [], []
    for n, t in chosen.nonzero().tolist():
        p = np.exp(logits[n, t]) / np.exp(logits[n, t]).sum()
        losses.append(-np.log(p[data["text"][n, t]]))
        truth.append(int(data["text"][n, t]))
    assert (hidden[chosen] == data["text"][chosen]).any() or not args
    out = method(data)
    assert out["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    share = np.bincount(truth) / len(truth)
    assert out["accuracy_unigram"].item() == pytest.approx(share.max(), rel=1e-5)
    assert out["bits_unigram"].item() == pytest.approx(-sum(p * math.log2(p) for p in share if p), rel=1e-5)


def test_only_chosen_tokens_are_learned():
    method, data = build(), batch()
    kept = []
    method.output.register_forward_hook(lambda module, inputs, out: (out.retain_grad(), kept.append(out))[1])
    method(data)["loss"].backward()
    (logits,) = kept
    chosen = method.guessed(data)[2]
    assert torch.equal(logits.grad.abs().amax(2) > 0, chosen) and not chosen.all(), "a short text has fewer"
    assert method.encoder.text.embed.weight.grad[V].any(), "the mask's own row is learned"
    assert logits.shape[2] == V, "and never guessed"


def test_the_embedding_is_the_output():
    method, data = build(), batch()
    states = torch.randn(3, 16)
    expected = states @ method.encoder.text.embed.weight[:V].T + method.output.bias
    torch.testing.assert_close(method.output(states, method.encoder.text.embed.weight), expected)
    assert not [name for name in method.state_dict() if name.startswith("output") and name != "output.bias"]


def test_masks_are_drawn_anew_each_epoch():
    method, data = build(), batch()
    other = {**data, "key": rng.key(1, torch.arange(12))}
    assert method(data)["loss"] == method(data)["loss"] != method(other)["loss"]


def test_learns_from_both_sides(fit):
    """Each word is between two that name it together: better than a unigram on the same places."""
    random = torch.Generator().manual_seed(0)

    def texts(step):
        a, b = (torch.randint(4, 8, (64, 1), generator=random) for _ in range(2))
        words = torch.cat([torch.ones_like(a), a, 8 + (a - 4) * 2 + b % 2, b, torch.full_like(a, 2)], 1)
        return {"text": words, "key": rng.key(step, torch.arange(64))}

    method = build()
    said = fit(method, texts, 150, lr=3e-3)
    out = method.eval()(texts(1000))
    assert out["accuracy"] > out["accuracy_unigram"] + 0.1 and out["bits"] < out["bits_unigram"] - 0.5, (said, out)
