import copy

import pytest
import torch
import torch.nn.functional as F

from selfsup import evals, nets
from selfsup.core import rng
from selfsup.errors import UserError
from selfsup.evals import finetune
from selfsup.inputs.views import View
from selfsup.layers import ImageEncoder

BUDGET = {"images": 960, "batch": 32, "optimizer": "adamw", "weight_decay": 0.05, "warmup": 0.1, "clip": 1.0}


def test_learns_what_is_separable_and_leaves_the_encoder_alone(net, stripes):
    before = copy.deepcopy(net.state_dict())
    result = dict(evals.run("finetune", net, stripes, lr=[1e-6, 1e-2], **BUDGET))
    assert result["accuracy"] == 100 and result["lr"] == 1e-2 and result["val_accuracy"] == 100
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_every_parameter_is_trained_and_all_of_it_repeats_exactly(net, stripes):
    torch.manual_seed(1)
    budget = {**BUDGET, "images": 640}
    first = finetune.fit(net, stripes.train, 1e-2, **budget)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = finetune.fit(net, stripes.train, 1e-2, **budget)
    assert torch.equal(state, torch.get_rng_state())     # nobody else's random numbers change either
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    own = dict(net.named_parameters())
    assert not [name for name, value in first.encoder.named_parameters() if torch.equal(value, own[name])]


def test_equals_the_loop_written_out(net, stripes):
    """SGD with momentum 0.9, warm-up over the first of four steps, then half a cosine; the views those of training."""
    budget = {**BUDGET, "optimizer": "sgd", "images": 128, "warmup": 0.25, "clip": 0.0, "weight_decay": 0.1}
    found = finetune.fit(net, stripes.train, 0.5, **budget)
    model = copy.deepcopy(net).requires_grad_().train()
    weight, bias = torch.zeros(4, net.dim, requires_grad=True), torch.zeros(4, requires_grad=True)
    parameters = [*model.parameters(), weight, bias]
    momentum = [torch.zeros_like(p) for p in parameters]
    order = rng.permutation(400, finetune.SEED, 0)
    for step, rate in enumerate([0.5, 0.5, 0.375, 0.125]):
        index = order[32 * step:32 * step + 32]
        batch = {"image": stripes.train.images[index], "index": index, "epoch": torch.zeros(32, dtype=torch.long)}
        x = View("crop_flip")(batch, finetune.SEED, net.mean, net.std)["image"]
        z = model(x)
        z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
        gradients = torch.autograd.grad(F.cross_entropy(z @ weight.T + bias, stripes.train.labels[index]), parameters)
        with torch.no_grad():
            for p, v, g in zip(parameters, momentum, gradients):
                v.mul_(0.9).add_(g + (0.1 * p if p.dim() > 1 else 0))
                p.sub_(rate * v)
    torch.testing.assert_close(found.linear.weight, weight, atol=1e-4, rtol=1e-3)
    for p, q in zip(found.encoder.parameters(), model.parameters()):
        torch.testing.assert_close(p, q, atol=1e-4, rtol=1e-3)


def test_the_rate_is_chosen_on_val_and_test_is_read_once(net, stripes):
    rates = {"lr": [1e-2, 1e-6], **BUDGET, "images": 640}
    chosen = dict(evals.run("finetune", net, stripes, **rates))
    assert stripes.test.reads == 1
    stripes.test.labels = stripes.test.labels.roll(1)
    shuffled = dict(evals.run("finetune", net, stripes, **rates))
    assert (shuffled["lr"], shuffled["val_accuracy"]) == (chosen["lr"], chosen["val_accuracy"])
    assert shuffled["accuracy"] < 50
    stripes.val.labels = 3 - stripes.val.labels          # now what has learned nothing is better on val
    assert dict(evals.run("finetune", net, stripes, **rates))["lr"] == 1e-6


def test_a_rate_that_diverges_loses_and_none_left_is_an_error(net, stripes):
    budget = {**BUDGET, "images": 128, "optimizer": "sgd", "clip": 0.0}
    result = dict(evals.run("finetune", net, stripes, lr=[1e30, 1e-2], **budget))
    assert result["lr"] == 1e-2
    with pytest.raises(UserError, match="diverges at every learning rate"):
        list(evals.run("finetune", net, stripes, lr=[1e30], **budget))


def test_features_of_any_scale_are_learned_from_alike(net, stripes):
    class Scaled(ImageEncoder):
        def __init__(self):
            super().__init__()
            self.net, self.dim, self.mean, self.std = net, net.dim, net.mean, net.std

        def forward(self, x):
            return self.net(x) * 1000

    assert dict(evals.run("finetune", Scaled(), stripes, lr=[1e-2], **BUDGET))["accuracy"] == 100


# Where to cut


def test_layers_are_the_modules_that_no_map_before_needs(net, stripes):
    assert finetune.layers(net, stripes.train) == [[f"blocks.{i}.0", f"blocks.{i}.1"] for i in range(5)]
    assert not any(p.requires_grad for p in net.parameters())
    vit = nets.build("vit", size=16, dim=8, depth=2, heads=2, patch=4)
    vit.mean, vit.std = net.mean, net.std
    first, last = finetune.layers(vit, stripes.train)
    assert first[0] == "embed" and all(name.startswith("blocks.0.") for name in first[1:])
    assert last[-1] == "norm" and all(name.startswith("blocks.1.") for name in last[:-1])


def test_frozen_layers_stay_as_they_are_and_batch_norm_there_too(net, stripes):
    found = finetune.fit(net, stripes.train, 1e-2, **{**BUDGET, "images": 128}, freeze=2).encoder
    own = net.state_dict()
    kept = {name for name, value in found.state_dict().items() if torch.equal(value, own[name])}
    assert kept == {name for name in own if name.startswith(("blocks.0.", "blocks.1."))}
    # What was trained saw them as they are when they are judged: a step by hand, the two in evaluation mode.
    images = torch.randn(8, 3, 16, 16)
    torch.testing.assert_close(found.layers(images)[1], net.layers(images)[1])


def test_cuts_are_looked_at_one_by_one_and_chosen_on_val(net, stripes):
    budget = {**BUDGET, "images": 640, "lr": [1e-2]}
    plain = dict(evals.run("finetune", net, stripes, **budget))
    assert list(plain) == ["accuracy", "low", "high", "val_accuracy", "lr"]  # as before there were cuts
    result = dict(evals.run("finetune", net, stripes, **budget, freeze=[5, 0]))
    assert result["cuts"]["0"] == plain and list(result["cuts"]) == ["5", "0"]
    assert result["cuts"]["5"]["val_accuracy"] < plain["val_accuracy"] == result["val_accuracy"]
    assert result["freeze"] == 0
    with pytest.raises(UserError, match="freeze: 6, and the encoder has 5 layers"):
        evals.judge("finetune", net, stripes, **budget, freeze=[6])
