"""ELMo's two language models against section 3.1 in loops, and what each of them must not see."""

import math

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.elmo import ELMo

V = 14


def build():
    torch.manual_seed(0)
    return ELMo(nets.build("token_lstm", vocabulary=V, dim=8, depth=2, directions=2), {"vocabulary": V})


def texts(n=6, seed=0):
    text = torch.randint(4, V, (n, 9), generator=torch.Generator().manual_seed(seed))
    text[:, 0] = 1
    for row, size in enumerate(torch.arange(n) % 5 + 3):
        text[row, size] = 2
        text[row, size + 1 :] = 0
    return text


def test_loss_against_loops():
    """Token k from the forward state at k − 1 and from the backward state at k + 1, by one softmax layer."""
    method, text = build(), texts()
    forwards, backwards = (states[-1] for states in method.encoder.read(text))
    weight, bias = (p.detach().double().numpy() for p in (method.predict.weight, method.predict.bias))

    def nll(state, token):
        logits = weight @ state.detach().double().numpy() + bias
        return np.log(np.exp(logits).sum()) - logits[token]

    ahead, behind = [], []
    for n, row in enumerate(text.tolist()):
        real = [token for token in row if token]
        ahead += [nll(forwards[n, k - 1], real[k]) for k in range(1, len(real))]
        behind += [nll(backwards[n, k + 1], real[k]) for k in range(len(real) - 1)]
    out = method({"text": text})
    assert out["loss"].item() == pytest.approx(np.mean(ahead) + np.mean(behind), rel=1e-5)
    assert out["bits"].item() == pytest.approx((np.mean(ahead) + np.mean(behind)) / 2 / math.log(2), rel=1e-5)


def test_no_direction_sees_what_it_guesses():
    method, text = build(), texts()
    later, earlier = method.logits(text)
    for k in (1, 2):
        other = text.clone()
        other[:, k] = 4 + (other[:, k] + 3) % (V - 4)
        a, b = method.logits(other)
        assert torch.equal(a[:, k - 1], later[:, k - 1]) and not torch.equal(a[:, k], later[:, k])  # of k, of k + 1
        assert torch.equal(b[:, k], earlier[:, k]) and not torch.equal(b[:, k - 1], earlier[:, k - 1])


def test_directions_share_the_embedding_and_the_softmax_alone():
    method, text = build(), texts()
    later, _ = method.logits(text)
    later.logsumexp(2).sum().backward()
    has = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name for name, _ in method.named_parameters()} - has == {
        name for name, _ in method.named_parameters() if "backwards" in name}
    assert "encoder.embed.weight" in has and "predict.weight" in has


def test_learns_both_directions(fit):
    """A text that counts in a circle: each neighbour tells the other."""
    start = torch.randint(10, (64, 1), generator=torch.Generator().manual_seed(0))
    text = torch.cat([torch.ones_like(start), 4 + (start + torch.arange(8)) % 10], 1)
    method = build()
    fit(method, lambda step: {"text": text}, 100, lr=1e-2)
    out = method.eval()({"text": text})
    assert out["accuracy"] > 0.8 and out["accuracy_back"] > 0.8
