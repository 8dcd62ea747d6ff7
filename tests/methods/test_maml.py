import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from selfsup import nets
from selfsup.errors import UserError
from selfsup.methods.maml import Maml


def algorithm_2(method, x, ways, shots, queries, rate, steps, first_order):
    """The outer loss of tasks x (E, ways, shots + queries, …), a task and a step at a time."""
    losses = []
    for episode in x:
        weights = dict(torch.nn.Sequential(method.encoder, method.initial).named_parameters())

        def loss(weights, rows):
            net = torch.nn.Sequential(method.encoder, method.initial)
            logits = torch.func.functional_call(net, weights, rows.flatten(0, 1))
            return F.cross_entropy(logits, torch.arange(ways).repeat_interleave(rows.shape[1]))

        for _ in range(steps):
            gradient = torch.autograd.grad(loss(weights, episode[:, :shots]), list(weights.values()),
                                           create_graph=not first_order)
            weights = {name: value - rate * g for (name, value), g in zip(weights.items(), gradient)}
        losses.append(loss(weights, episode[:, shots:]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("encoder", [{"name": "convnet", "width": 4, "norm": "group"},
                                     {"name": "vit", "size": 16, "patch": 8, "dim": 8, "depth": 1, "heads": 2}])
@pytest.mark.parametrize("first_order", [False, True])
def test_is_the_papers_algorithm(prepare, encoder, first_order):
    """Loss and gradient of two tasks and two steps, in double. Excludes an inner loss that is `ways` times the mean,
    as the authors' is, and tasks that are added up. A ViT's fused attention has no second derivative."""
    method = Maml(nets.build(**encoder), ways=3, shots=2, queries=2, rate=0.3, steps=2, first_order=first_order)
    method = method.double()
    batch = prepare(method, 24)
    batch["image"] = batch["image"].double()
    trained = [p for p in method.parameters() if p.requires_grad]
    ours = method(batch)["loss"]
    with sdpa_kernel(SDPBackend.MATH):
        theirs = algorithm_2(method, batch["image"].unflatten(0, (2, 3, 4)), 3, 2, 2, 0.3, 2, first_order)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(torch.autograd.grad(ours, trained), torch.autograd.grad(theirs, trained), strict=True):
        torch.testing.assert_close(a, b)


def test_first_order_is_another_gradient(prepare):
    found = []
    for first_order in (False, True):
        torch.manual_seed(0)
        method = Maml(nets.build("convnet", width=4, norm="group"), 2, 1, 3, first_order=first_order)
        out = method(prepare(method, 8))
        found.append((out["loss"], *torch.autograd.grad(out["loss"], list(method.parameters()))))
    assert torch.equal(found[0][0], found[1][0])
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in zip(*found))


def test_an_encoder_with_batch_norm_is_refused():
    with pytest.raises(UserError, match="maml adapts .* BatchNorm has no statistics .* norm: group"):
        Maml(nets.build("convnet", width=4))
