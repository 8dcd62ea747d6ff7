"""MoCo against Algorithm 1 written as loops, and its queue and momentum encoder step by step."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from selfsup import nets
from selfsup.methods.moco import MoCo


def build(norm="group", **args):
    torch.manual_seed(0)
    return MoCo(nets.build("convnet", width=4, norm=norm), **{"queue": 10, "dim": 8, "hidden": 16, **args})


def views(n=4, seed=1):
    random = torch.Generator().manual_seed(seed)
    return {"image": torch.randn(n, 2, 3, 16, 16, generator=random), "key": torch.randperm(n, generator=random)}


def vectors(method, batch):
    """Queries and keys (N, dim), each image on its own: right where the encoder has no BatchNorm."""
    with torch.no_grad():
        q = [method.head(method.encoder(x[None, 0]))[0] for x in batch["image"]]
        k = [method.key.module(x[None, 1])[0] for x in batch["image"]]
    return F.normalize(torch.stack(q), dim=1), F.normalize(torch.stack(k), dim=1)


@pytest.mark.parametrize("head, temperature", [("linear", 0.07), ("mlp", 0.2)])
def test_loss_is_equation_1(head, temperature):
    method, batch = build(head=head), views()
    method.after_step(1.0)
    queue = method.queue.keys.double().numpy().copy()
    q, k = (v.double().numpy() for v in vectors(method, batch))
    expected = 0.0
    for a, b in zip(q, k):
        scores = [a @ b / temperature] + [a @ old / temperature for old in queue]
        expected -= np.log(np.exp(scores[0]) / sum(np.exp(scores)))
    loss = method(batch)["loss"]
    assert float(loss.detach()) == pytest.approx(expected / len(q), rel=1e-5)


def test_versions():
    v1, v2 = build(head="linear"), build()
    assert (v1.inputs.augment, v2.inputs.augment) == ("moco_v1", "moco_v2")
    assert isinstance(v1.head, torch.nn.Linear) and len(v2.head) == 3
    assert build(temperature=0.5).temperature == 0.5


def test_key_encoder_starts_equal_and_moves_by_momentum_exactly():
    method = build(norm="batch", momentum=0.9)
    online = lambda: [p.detach().clone() for p in [*method.encoder.parameters(), *method.head.parameters()]]  # noqa: E731
    expected = online()
    assert all(torch.equal(a, b) for a, b in zip(method.key.parameters(), expected, strict=True))
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.5)
    for seed in range(3):
        optimizer.zero_grad()
        method(views(seed=seed))["loss"].backward()
        optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(method.key.parameters(), expected)) or seed  # not before after_step
        method.after_step(seed / 3)
        expected = [0.9 * e + 0.1 * p for e, p in zip(expected, online())]
        for key, value in zip(method.key.parameters(), expected, strict=True):
            torch.testing.assert_close(key, value, rtol=1e-6, atol=1e-7)
    assert not any(p.requires_grad for p in method.key.parameters())


def test_queue_never_holds_its_own_batchs_keys():
    """Three batches of 4 through a queue of 10: before each, the last 10 keys of earlier batches and nothing else."""
    method, history = build(), None
    history = list(method.queue.keys.clone())
    for seed in range(5):
        batch = views(seed=seed)
        q, k = vectors(method, batch)
        before = method.queue.keys.clone()
        assert (before @ k.T).max() < 1 - 1e-6
        expected = torch.stack(history[-10:])  # oldest first
        torch.testing.assert_close(before.roll(-int(method.queue.next), 0), expected)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ before.T], 1) / 0.2
        loss = method(batch)["loss"]
        torch.testing.assert_close(loss, F.cross_entropy(logits, torch.zeros(4, dtype=torch.long)))
        history += list(k)
    loss.backward()  # the push has not changed what the backward pass needs


def test_gradient_is_that_of_the_keys_before_the_push():
    method, batch = build(queue=4), views()  # every key is overwritten by the push
    reference, old = copy.deepcopy(method), method.queue.keys.clone()
    method(batch)["loss"].backward()
    q = F.normalize(reference.head(reference.encoder(batch["image"][:, 0])), dim=1)
    _, k = vectors(reference, batch)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ old.T], 1) / 0.2
    F.cross_entropy(logits, torch.zeros(4, dtype=torch.long)).backward()
    for mine, theirs in zip(method.encoder.parameters(), reference.encoder.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_batch_larger_than_the_queue():
    method, batch = build(queue=3), views(8)
    _, k = vectors(method, batch)
    method(batch)
    torch.testing.assert_close(method.queue.keys.sort(0).values, k[-3:].sort(0).values)


def test_evaluation_pushes_nothing():
    method = build().eval()
    before = method.queue.keys.clone()
    method(views())
    assert torch.equal(method.queue.keys, before)


def test_no_image_is_alone_in_its_group_of_batch_norm():
    method = build(norm="batch", group=2)  # seven images: three, two and two of them
    assert method(views(7))["loss"].isfinite()


def test_keys_are_shuffled_over_the_groups_of_batch_norm():
    """Keys come back in the order of their images, but with the statistics of another group than the query's."""
    method, batch = build(norm="batch", group=4), views(16)
    seen = {"query": [], "key": []}
    method.encoder.register_forward_hook(lambda _, x, __: seen["query"].append(x[0]))
    method.key.module[0].register_forward_hook(lambda _, x, __: seen["key"].append(x[0]))
    method(batch)
    assert [len(x) for x in seen["query"]] == [len(x) for x in seen["key"]] == [4] * 4
    assert torch.equal(torch.cat(seen["query"]), batch["image"][:, 0])
    shuffled = torch.cat(seen["key"])
    where = [int((batch["image"][:, 1] == x).flatten(1).all(1).nonzero()) for x in shuffled]
    assert sorted(where) == list(range(16)) and where != sorted(where)
    without = build(group=4)  # no BatchNorm: shuffling is invisible, so keys are in the images' order
    _, k = vectors(without, batch)
    without(batch)
    torch.testing.assert_close(without.queue.keys.roll(-int(without.queue.next), 0), k[-10:])


def flops(queue, n=2):
    """Of a step with ResNet-18 at 32 px, by shapes alone (meta tensors)."""
    with torch.device("meta"):
        method = MoCo(nets.build("resnet18"), queue=queue)
        batch = {"image": torch.empty(n, 2, 3, 32, 32), "key": torch.empty(n, dtype=torch.long)}
    with FlopCounterMode(display=False) as counter:
        method(batch)["loss"].backward()
    return counter.get_total_flops()


def test_step_cost_is_flat_in_queue_size():
    """A key costs its inner product with the query and that product's gradient, 4·dim operations, and no encoding:
    256 times the queue costs under 2 % more for this encoder (a large batch in its place would cost 256 times)."""
    small, large = flops(256), flops(65536)
    assert large - small == 2 * 4 * 128 * (65536 - 256)
    assert large < 1.02 * small


def test_checkpoint_names_are_unambiguous():
    names = build().state_dict()
    assert {name.split(".")[0] for name in names} == {"encoder", "head", "key", "queue"}
    assert sum(value.numel() for name, value in names.items() if name.startswith("key.")) == sum(
        value.numel() for name, value in names.items() if name.split(".")[0] in ("encoder", "head")
    )
