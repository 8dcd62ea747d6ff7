"""word2vec against equation 4 in loops, its draws against their frequencies, and topics that words share."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.core import rng
from selfsup.errors import UserError
from selfsup.inputs.tokens import windows
from selfsup.methods.word2vec import Word2Vec, kept

V = 24
COUNTS = [0, 50, 50, 7, *range(100, 100 + 20 * 10, 10)]


def build(counts=COUNTS, dim=8, **args):
    torch.manual_seed(0)
    return Word2Vec(nets.build("word_vectors", vocabulary=len(counts), dim=dim), {"token_counts": counts}, **args)


def batch(n=5, seed=0, text=None):
    if text is None:
        text = torch.randint(4, V, (n, 9), generator=torch.Generator().manual_seed(seed))
        text[:, 0], text[:, 7], text[:, 8] = 1, 2, 0
    return {"text": text, "key": rng.key(seed, torch.arange(len(text)))}


def test_loss_and_gradient_against_loops():
    """Equation 4 for each pair, the negative that is the word itself skipped, and its gradient by hand."""
    method, data = build(subsample=1.0, width=3), batch()
    method.output.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    method.output.weight.data.mul_(3), method.encoder.embed.weight.data.mul_(20)
    centre, around = windows(data["text"], data["key"], method.keep, 3)
    drawn = method.drawn(data["key"], *around.shape[1:])
    given, output = (w.detach().double().numpy() for w in (method.encoder.embed.weight, method.output.weight))
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    losses, gradient, skipped = [], np.zeros_like(given), 0
    for n, t, w in (around != 0).nonzero().tolist():
        middle, context = int(centre[n, t]), int(around[n, t, w])
        loss = -np.log(sigmoid(output[middle] @ given[context]))
        gradient[context] += (sigmoid(output[middle] @ given[context]) - 1) * output[middle]
        for word in drawn[n, t, w].tolist():
            if word == middle:
                skipped += 1
                continue
            loss -= np.log(sigmoid(-output[word] @ given[context]))
            gradient[context] += sigmoid(output[word] @ given[context]) * output[word]
        losses.append(loss)
    assert len(losses) > 60 and skipped
    out = method(data)
    assert out["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    out["loss"].backward()
    np.testing.assert_allclose(method.encoder.embed.weight.grad.numpy(), gradient / len(losses), atol=1e-5)


def test_noise_is_drawn_as_the_power_three_quarters_says():
    method = build()
    drawn = method.drawn(rng.key(0, torch.arange(400)), 10, 10).flatten()
    share = drawn.bincount(minlength=V) / len(drawn)
    weight = np.array([0] * 4 + COUNTS[4:]) ** 0.75
    np.testing.assert_allclose(share, weight / weight.sum(), atol=2e-3)
    assert (share[:4] == 0).all() and abs(share[V - 1] - COUNTS[-1] / sum(COUNTS[4:])) > 4e-3


@pytest.mark.parametrize("frequency, expected", [(0.05, 0.161), (0.01, 0.416), (0.001, 1.0)])
def test_frequent_words_stay_as_the_authors_code_has_it_and_not_the_paper(frequency, expected):
    count = torch.tensor([frequency, 1 - frequency, 0]).double() * 1e6
    keep = kept(count, 1e-3)
    assert keep[0].item() == pytest.approx(expected, abs=1e-3) and keep[2] == 0
    assert (build().keep[:4] == 0).all() and (build().keep[4:] > 0).all()


def test_it_starts_as_the_authors_code_does():
    method = build(dim=10)
    weight = method.encoder.embed.weight.detach()
    assert weight.abs().max() <= 1 / 20 and weight.std().item() == pytest.approx(0.1 / 12**0.5, rel=0.1)
    # The pair and five negatives, less those that are the word itself, which is one of twenty.
    assert not method.output.weight.any()
    assert method(batch())["loss"].item() == pytest.approx(5.65 * np.log(2), rel=0.03)


def test_words_of_a_topic_are_alike(fit):
    """Two topics of ten words each, and texts of one of them."""
    random = torch.Generator().manual_seed(0)

    def texts(step):
        topic = torch.randint(2, (64, 1), generator=random)
        return batch(text=4 + topic * 10 + torch.randint(10, (64, 12), generator=random), seed=step)

    method = build([0, 0, 0, 0, *[100] * 20], dim=16, subsample=1.0)
    fit(method, texts, 120, lr=1e-2)
    words = torch.nn.functional.normalize(method.encoder.embed.weight.detach()[4:], dim=1)
    cosine = words @ words.T
    same = (torch.arange(20) // 10)[:, None] == torch.arange(20) // 10
    off = ~torch.eye(20, dtype=torch.bool)
    assert cosine[same & off].mean() > cosine[~same].mean() + 0.5
    assert cosine[same & off].min() > cosine[~same].max()


def test_words_are_as_alike_as_gensims_say(fit):
    """Twenty words in a circle, and texts of what lies around one place: the order of all cosines is much the same."""
    gensim, stats = pytest.importorskip("gensim.models"), pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    circle = (random.integers(20, size=(800, 1)) + random.normal(0, 2, (800, 12)).round().astype(int)) % 20
    theirs = gensim.Word2Vec([[str(word) for word in text] for text in circle], vector_size=16, sg=1, sample=0,
                             min_count=1, epochs=10, workers=1, seed=1)
    theirs = np.array([theirs.wv[str(word)] for word in range(20)])
    method, texts = build([0, 0, 0, 0, *[480] * 20], dim=16, subsample=1.0), torch.from_numpy(circle) + 4
    fit(method, lambda step: batch(text=texts[step % 12 * 64:][:64], seed=step), 150, lr=1e-2)
    ours = method.encoder.embed.weight.detach()[4:].numpy()
    pairs = np.triu_indices(20, 1)
    cosines = [(v @ v.T)[pairs] for v in (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (theirs, ours))]
    assert stats.spearmanr(*cosines)[0] > 0.5


def test_shards_without_counts_are_one_sentence():
    with pytest.raises(UserError, match="word2vec needs how often each token occurs"):
        Word2Vec(nets.build("word_vectors", vocabulary=9), {"vocabulary": 9})
