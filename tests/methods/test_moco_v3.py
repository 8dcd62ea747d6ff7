"""MoCo v3 against Algorithm 1 written as loops, and stable on a ViT."""

import math

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.moco_v3 import MoCoV3

VIT = {"name": "vit", "size": 16, "patch": 4, "dim": 32, "depth": 2, "heads": 2}


def build(encoder=None, **args):
    torch.manual_seed(0)
    encoder = nets.build(**(encoder or {"name": "convnet", "width": 4}))
    return MoCoV3(encoder, **{"hidden": 32, "dim": 16, **args})


def weights(*modules):
    return [p.detach().clone() for module in modules for p in module.parameters()]


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_loss_is_algorithm_1(prepare, temperature):
    method = build(temperature=temperature)
    batch = prepare(method)
    with torch.no_grad():
        for p in method.key.parameters():
            p.mul_(1.2)
        views = batch["image"].unbind(1)
        q = [method.predictor(method.projector(method.encoder(x))).double().numpy() for x in views]
        k = [method.key(x).double().numpy() for x in views]

    def contrast(q, k):
        q, k = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (q, k))
        terms = []
        for i in range(len(q)):
            scores = [q[i] @ other / temperature for other in k]
            terms.append(-np.log(np.exp(scores[i]) / sum(np.exp(scores))))
        return np.mean(terms) * 2 * temperature

    expected = contrast(q[0], k[1]) + contrast(q[1], k[0])
    assert float(method(batch)["loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_keys_move_by_ema_alone_and_have_no_predictor(prepare):
    method = build(momentum=0.9)
    expected = weights(method.encoder, method.projector)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.1)
    for step in range(3):
        optimizer.zero_grad()
        method(prepare(method, seed=step))["loss"].backward()
        optimizer.step()
        assert all(p.grad is None for p in method.key.parameters())
        method.after_step((step + 1) / 3)
        momentum = 1 - (1 - 0.9) * (math.cos(math.pi * (step + 1) / 3) + 1) / 2
        now = weights(method.encoder, method.projector)
        expected = [momentum * e + (1 - momentum) * p for e, p in zip(expected, now)]
        for key, value in zip(weights(method.key), expected, strict=True):
            torch.testing.assert_close(key, value, rtol=1e-5, atol=1e-6)


def test_trains_stably_on_vit_with_its_patch_projection_frozen(prepare, fit):
    method = build(VIT, momentum=0.9)
    patches, blocks = weights(method.encoder.embed), weights(method.encoder.blocks)
    losses = []

    def moving(step):
        if step:
            method.after_step(step / 60)
        return prepare(method, 32, "smooth", step)

    method.register_forward_hook(lambda _, __, out: losses.append(float(out["loss"].detach())))
    fit(method, moving, 60, lr=1e-3)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < 0.92 * np.mean(losses[:10])
    assert max(losses[30:]) < np.mean(losses[:10])  # no dips and jumps, the paper's figure 4
    assert all(map(torch.equal, weights(method.encoder.embed), patches))
    assert not any(map(torch.equal, weights(method.encoder.blocks), blocks))
    assert all(p.requires_grad for p in build().encoder.parameters())  # a ConvNet has no patches
    timms = build({"name": "vit_tiny_patch16_224", "img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 1, "num_heads": 2})
    still = {name for name, p in timms.encoder.named_parameters() if not p.requires_grad}
    assert still == {"net.patch_embed.proj.weight", "net.patch_embed.proj.bias"}
    assert all(p.requires_grad for p in build({"name": "test_resnet"}).encoder.parameters())
