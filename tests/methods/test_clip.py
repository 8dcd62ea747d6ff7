"""CLIP against figure 3 of the paper, line by line in NumPy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.methods.clip import CLIP
from selfsup.inputs.augment import AUGMENTS


def build(norm="group", **args):
    torch.manual_seed(0)
    return CLIP(nets.build("convnet", width=4, norm=norm), {"vocabulary": 20}, **{"dim": 16, **args})


def pairs(n=6):
    captions = torch.randint(1, 20, (n, 5))
    captions[::2, 3:] = 0
    return {"image": torch.randn(n, 3, 16, 16), "caption": captions}


def figure_3(images, texts, t):
    """The paper's pseudocode: I_e and T_e are scaled pairwise cosine similarities' rows, the loss symmetric."""
    i_e = images / np.linalg.norm(images, axis=1, keepdims=True)
    t_e = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    logits = np.dot(i_e, t_e.T) * np.exp(t)

    def cross_entropy(rows):
        return np.mean([-np.log(np.exp(row[i]) / np.exp(row).sum()) for i, row in enumerate(rows)])

    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


def test_loss_is_figure_3():
    method, batch = build(), pairs()
    with torch.no_grad():
        images = method.image_head(method.encoder(batch["image"])).double().numpy()
        texts = method.text(batch["caption"]).double().numpy()
        method.log_scale.fill_(1.3)
    out = method(batch)
    assert float(out["loss"].detach()) == pytest.approx(figure_3(images, texts, 1.3), rel=1e-5)
    assert float(out["temperature"]) == pytest.approx(math.exp(-1.3))


def test_gradient_is_that_of_the_whole_loss():
    """Each caption is a negative of other images, and is moved as such, and the other way round."""
    method, batch = build(), pairs(4)
    image, text = method.project(batch)
    s = (method.log_scale.exp() * image @ text.T).exp()
    reference = torch.stack([(s[i].sum() * s[:, i].sum() / s[i, i] ** 2).log() / 2 for i in range(4)]).mean()
    parameters = list(method.parameters())
    expected = torch.autograd.grad(reference, parameters)
    for mine, reference in zip(torch.autograd.grad(method(batch)["loss"], parameters), expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


def test_temperature_starts_at_the_papers_is_learned_and_clipped():
    method = build()
    assert float(method.log_scale.exp().detach()) == pytest.approx(1 / 0.07)
    method(pairs())["loss"].backward()
    assert method.log_scale.grad != 0
    method.log_scale.data.fill_(9.0)
    method.after_step(0.5)
    assert float(method.log_scale.exp().detach()) == pytest.approx(100)
    method(pairs())["loss"].backward()
    assert method.log_scale.grad.isfinite() and method.log_scale.grad != 0  # at the limit it can still come down


def test_views_do_not_flip():
    assert AUGMENTS[CLIP.inputs.augment].flip == 0 and AUGMENTS[CLIP.inputs.augment].crop
    assert CLIP.inputs.columns == ("image", "caption")


def test_padding_changes_nothing():
    method, batch = build(), pairs()
    longer = F.pad(batch["caption"], (0, 3))
    torch.testing.assert_close(method({**batch, "caption": longer})["loss"], method(batch)["loss"])


def test_equal_captions_are_negatives_of_each_other():
    """As in the paper: two images with one caption cannot both be right, log 2 is the least they can cost by image."""
    method, batch = build(), pairs(2)
    batch["caption"] = batch["caption"][:1].expand(2, -1)
    image, text = method.project(batch)
    torch.testing.assert_close(text[0], text[1])
    by_image = F.cross_entropy(image @ text.T, torch.arange(2))
    torch.testing.assert_close(by_image, torch.tensor(math.log(2)))


def test_learns_which_caption_belongs_to_which_image():
    """Colour named in a word: after 60 steps new images find their word; the zero-shot prompt is that word alone."""
    method = build(norm="batch")
    random = torch.Generator().manual_seed(3)

    def batch(n):
        word = torch.randperm(6, generator=random)[:n]
        colour = torch.tensor([[c & 1, c >> 1 & 1, c >> 2 & 1] for c in (1, 2, 3, 4, 5, 6)]).float()[word]
        image = colour[:, :, None, None] * 2 - 1 + 0.5 * torch.randn(n, 3, 16, 16, generator=random)
        return {"image": image, "caption": torch.stack([torch.full((n,), 9), word + 1], 1)}

    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    for step in range(60):
        optimizer.zero_grad()
        method(batch(6))["loss"].backward()
        optimizer.step()
        method.after_step(step / 60)
    right = [float(method.eval()(batch(6))["accuracy"]) for _ in range(5)]
    assert np.mean(right) > 0.8
    parts = method.parts()
    test = batch(6)
    words = F.normalize(parts["text"](torch.arange(1, 7)[:, None]), dim=1)
    images = F.normalize(parts["image_head"](parts["encoder"](test["image"])), dim=1)
    assert ((images @ words.T).argmax(1) == test["caption"][:, 1] - 1).float().mean() > 1 / 6


def test_affinity_picture():
    pictures = build().pictures(pairs(4))
    assert pictures["affinity"].shape == (32, 32) and set(pictures) == {"views", "affinity"}


def test_the_text_encoder_starts_at_the_papers_scales_and_so_reads_the_order_of_words():
    """initialize_parameters of the authors' code. Shuffling a caption moves its feature by a hundredth of the distance to
    another, in squares; with tokens of the size 1 by a thousandth of that."""
    torch.manual_seed(0)
    text = nets.build("text_transformer", vocabulary=1000, dim=64)
    assert float(text.embed.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert float(text.position.detach().std()) == pytest.approx(0.01, rel=0.05)
    captions = torch.randint(1, 1000, (50, 8))
    with torch.no_grad():
        own, shuffled = text(captions), text(captions[:, torch.tensor([3, 5, 0, 7, 2, 6, 1, 4])])
    moved, apart = (own - shuffled).square().sum(1).mean(), (own - own.roll(1, 0)).square().sum(1).mean()
    assert moved / apart > 2e-3
