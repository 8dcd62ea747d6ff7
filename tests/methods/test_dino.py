"""DINO against Algorithm 1 written as loops, its centre and teacher step by step, and its attention maps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from selfsup import methods, nets
from selfsup.methods.dino import DINO
from selfsup.training import publish

VIT = {"name": "vit", "size": 16, "patch": 4, "dim": 32, "depth": 2, "heads": 2}
CONVNET = {"name": "convnet", "width": 4, "norm": "group"}


def build(encoder=CONVNET, small=2, **args):
    torch.manual_seed(0)
    method = DINO(nets.build(**encoder), **{"hidden": 32, "bottleneck": 16, "prototypes": 20, **args})
    method.inputs = replace(method.inputs, small=small)
    return method


def weights(*modules):
    return [p.detach().clone() for module in modules for p in module.parameters()]


def scores(head, last, features):
    """The head, by hand: cosines with the prototypes."""
    z, w = head(features).double().numpy(), last.weight.double().numpy()
    return np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in w] for a in z])


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("encoder, small", [(CONVNET, 2), (CONVNET, 0), (VIT, 2)])
def test_loss_is_algorithm_1_and_the_centre_moves_after_it(prepare, encoder, small):
    method = build(encoder, small=small)
    batch = prepare(method)
    with torch.no_grad():
        for p in method.teacher.parameters():
            p.mul_(1.1)
        method.last.weight[:3].mul_(5)  # the length of a prototype must not matter
        method.centre.normal_(0, 0.1)
        large = [batch["image"][:, v] for v in range(2)]
        crops = large + [batch["small"][:, v] for v in range(small)]
        student = [scores(method.head, method.last, method.encoder(x)) for x in crops]
        net = method.teacher.module
        teacher = [scores(net[1], net[2], net[0](x)) for x in large]
    centre, losses = method.centre.double().numpy().copy(), []
    for t in range(2):
        p_t = softmax((teacher[t] - centre) / 0.04)
        for s in range(len(crops)):
            if s != t:
                losses.append(-(p_t * np.log(softmax(student[s] / 0.1))).sum(1).mean())
    out = method(batch)
    assert float(out["loss"].detach()) == pytest.approx(np.mean(losses), rel=1e-4)
    expected = 0.9 * centre + 0.1 * np.concatenate(teacher).mean(0)
    np.testing.assert_allclose(method.centre.numpy(), expected, atol=1e-6)
    method.eval()(batch)
    np.testing.assert_allclose(method.centre.numpy(), expected, atol=1e-6)


def test_teacher_sees_large_crops_alone_and_moves_by_ema_with_its_head(prepare):
    method, seen = build(momentum=0.9), []
    method.teacher.register_forward_hook(lambda _, x, __: seen.append(tuple(x[0].shape)))
    expected = weights(method.encoder, method.head, method.last)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.1)
    for step in range(3):
        optimizer.zero_grad()
        method(prepare(method, seed=step))["loss"].backward()
        optimizer.step()
        assert all(p.grad is None for p in method.teacher.parameters())
        method.after_step((step + 1) / 3)
        momentum = 1 - (1 - 0.9) * (math.cos(math.pi * (step + 1) / 3) + 1) / 2
        now = weights(method.encoder, method.head, method.last)
        expected = [momentum * e + (1 - momentum) * p for e, p in zip(expected, now)]
        for target, value in zip(weights(method.teacher), expected, strict=True):
            torch.testing.assert_close(target, value, rtol=1e-5, atol=1e-6)
    assert seen == [(16, 3, 16, 16)] * 3


def test_centring_and_sharpening_balance(prepare, fit):
    """Figure 7 of the paper, as distance from collapse: without centring all images get one prototype, without
    sharpening all prototypes the same share; with both, neither."""

    def used(**args):
        """exp(entropy) of the teacher's mean distribution and, on average, of one image's; both at most 20."""
        method = build({**CONVNET, "norm": "batch"}, momentum=0.9, **args)
        batch = prepare(method, 32, "smooth")
        fit(method, lambda step: (method.after_step(step / 60), batch)[1], 60)
        with torch.no_grad():
            score = method.teacher(batch["image"][:, 0])
            p = ((score - method.centre) / method.teacher_temperature).softmax(1)
            each = torch.special.entr(p).sum(1).mean().exp()
            return float(torch.special.entr(p.mean(0)).sum().exp()), float(each)

    both, no_centring, no_sharpening = used(), used(centre=1.0), used(teacher_temperature=0.2)
    assert both[0] > 1.5 * both[1]  # images differ
    assert no_centring[0] < 1.5
    assert no_sharpening[1] > 19


def test_attention_maps_are_a_picture_of_vits(prepare):
    method = build(VIT).eval()
    pictures = method.pictures(prepare(method))
    assert pictures["attention"].shape == (3, 3 * 18, 8 * 18)  # the image and two heads, eight images, borders
    maps = pictures["attention"][:, 18:36, :18][:, 1:-1, 1:-1]
    assert torch.equal(maps, maps[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2))  # one for each patch
    assert maps.min() == 0 and maps.max() == 1
    assert set(build().eval().pictures(prepare(method))) == {"views"}


def test_timms_transformers_see_small_crops_and_attend(prepare):
    size = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
    method = build({"name": "vit_tiny_patch16_224", **size})
    batch = prepare(method)
    assert batch["small"].shape[-1] < batch["image"].shape[-1]
    method(batch)["loss"].backward()
    assert [name for name, p in method.encoder.named_parameters() if p.grad is None] == []
    assert method.eval().pictures(batch)["attention"].shape == (3, 3 * 18, 8 * 18)


@pytest.mark.parametrize("name", ["simclr", "rotation", "mae"])
def test_whatever_trains_a_transformer_shows_what_it_attends_to(prepare, name):
    method = methods.load(name)(nets.build(**VIT)).eval()
    batch = prepare(method)
    assert publish.attention(method, batch).shape == (3, 3 * 18, 8 * 18)
    assert publish.attention(methods.load("simclr")(nets.build("convnet", width=4)), batch) is None


def test_prototypes_start_as_the_authors():
    """nn.Linear(256, K, bias=False) under weight_norm: uniform up to 1/√256, so rows are about √(1/3) long."""
    weight = DINO(nets.build("convnet", width=4), prototypes=500).last.weight.detach()
    assert weight.shape == (500, 256) and weight.abs().max() <= 1 / 16 and weight.norm(dim=1).mean() == pytest.approx(3**-0.5, abs=0.01)
