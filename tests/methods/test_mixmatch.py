"""MixMatch against Algorithm 1 written as loops, with the shares and partners that were drawn."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.core import rng
from selfsup.data.order import Labelled, apart
from selfsup.inputs import mix
from selfsup.methods.mixmatch import MixMatch

CARD = {"classes": ["a", "b", "c"]}


def build(norm="group", **args):
    torch.manual_seed(0)
    return MixMatch(nets.build("convnet", width=4, norm=norm), CARD, **{"ramp": 0.0, **args})


def batch(n, views, seed=1):
    torch.manual_seed(seed)
    return {"image": torch.randn(n, views, 3, 16, 16), "label": torch.arange(n) % 3, "key": rng.key(seed, torch.arange(n))}


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def mixmatch(x, label, u, net, temperature, weight, share, partner):
    """Algorithm 1 and eqs. 2-5, image by image: x (B, …), u (N, K, …); share and partner of all (B + N·K)."""
    targets = [np.eye(3)[y] for y in label]
    images = [*x, *(view for image in u for view in image)]
    for image in u:
        q = np.mean([softmax(net(view)) for view in image], 0)  # lines 7 and 8: the mean guess, then sharpened
        q = q ** (1 / temperature) / (q ** (1 / temperature)).sum()
        targets += [q] * len(image)
    mixed = []
    for i in range(len(images)):  # lines 12 to 14
        own = max(share[i], 1 - share[i])
        mixed.append([own * of[i] + (1 - own) * of[partner[i]] for of in (images, targets)])
    labelled, unlabelled = mixed[: len(x)], mixed[len(x) :]
    loss_x = np.mean([-(target * np.log(softmax(net(image)))).sum() for image, target in labelled])
    loss_u = np.mean([((target - softmax(net(image))) ** 2).mean() for image, target in unlabelled])  # over classes: 1 / L
    return loss_x + weight * loss_u, loss_x, loss_u


@pytest.mark.parametrize("ratio, views, temperature", [(1, 2, 0.5), (2, 3, 1.0), (3, 1, 0.1)])
def test_loss_is_algorithm_1(ratio, views, temperature):
    method = build(ratio=ratio, views=views, temperature=temperature, weight=7.0).eval()
    method.after_step(1.0)
    assert method.inputs.count == views and method.order == Labelled(ratio)
    given = batch(2 * (1 + ratio), views)
    images, others = apart(given["image"], ratio)
    keys, other_keys = apart(given["key"], ratio)
    own = torch.cat([rng.key(keys, views), torch.stack([rng.key(other_keys, v) for v in range(views)], 1).flatten()])
    assert len(own.unique()) == len(own)

    def net(image):
        with torch.no_grad():
            return method.classifier(method.encoder(torch.as_tensor(image)[None].float()))[0].double().numpy()

    expected = mixmatch(images[:, 0].double().numpy(), apart(given["label"], ratio)[0].tolist(), others.double().numpy(), net,
                        temperature, 7.0, mix.shares(own, 0.75).double().numpy(), mix.partners(own).tolist())
    out = method(given)
    found = [float(out[name].detach()) for name in ("loss", "labelled", "unlabelled")]
    assert found == pytest.approx(expected, rel=1e-4)


def test_what_is_mixed_stays_nearer_to_itself():
    """Without λ' = max(λ, 1 - λ) half of what is called unlabelled would be labelled images, and the reverse."""
    method, x = build(), torch.randn(64, 3, 4, 4)
    targets = torch.eye(64)
    keys = rng.key(0, torch.arange(64))
    mixed, mixed_targets = method.mixed(x, targets, keys[:32], keys[32:48])
    assert (mixed_targets.diagonal() >= 0.5).all() and (mixed_targets.sum(1) - 1).abs().max() < 1e-6
    nearest = torch.cdist(mixed.flatten(1), x.flatten(1)).argmin(1)
    assert torch.equal(nearest, torch.arange(64))


def test_guesses_carry_no_gradient_and_leave_batch_norm_alone():
    method, given = build("batch"), batch(8, 2)
    norm = method.encoder.blocks[0][1]
    before = norm.running_mean.clone()
    label, others = apart(given["label"], 1)[0], apart(given["image"], 1)[1]
    assert not method.targets(label, others).requires_grad
    assert torch.equal(norm.running_mean, before) and norm.track_running_stats
    with torch.no_grad():  # in training mode all the same: by the statistics of these images
        z = method.classifier(method.encoder(others.flatten(0, 1)))
    torch.testing.assert_close(method.targets(label, others)[4:6], method.sharpened(z.view(4, 2, 3))[:1].expand(2, 3))
    seen = int(norm.num_batches_tracked)
    method(given)
    assert int(norm.num_batches_tracked) == seen + 1  # once a step, by all that is mixed


def test_sharpening():
    method, logits = build(temperature=1e-3), torch.randn(5, 2, 3)
    one_hot = torch.nn.functional.one_hot(logits.softmax(2).mean(1).argmax(1), 3).float()
    torch.testing.assert_close(method.sharpened(logits), one_hot, atol=1e-6, rtol=0)
    torch.testing.assert_close(build(temperature=1.0).sharpened(logits), logits.softmax(2).mean(1))


def test_the_weight_rises_linearly():
    method, risen = build(ramp=0.5), []
    for step in range(8):
        risen.append(float(method.risen))
        method.after_step((step + 1) / 8)
    assert risen == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


def test_labels_of_the_others_are_never_read():
    method, given = build().eval(), batch(8, 2)
    hidden = {**given, "label": given["label"].where(torch.arange(8) % 2 == 0, -1)}
    assert torch.equal(method(given)["loss"], method(hidden)["loss"])


def test_what_is_judged_is_the_average():
    method = build("batch", momentum=0.5)
    first = method.average.module[1].weight.clone()
    method.encoder(torch.randn(4, 3, 16, 16) + 3)
    method.classifier.weight.data.add_(1)
    method.after_step(1)
    torch.testing.assert_close(method.parts()["classifier"].weight, first + 0.5)
    norm, judged = (net.blocks[0][1] for net in (method.encoder, method.parts()["encoder"]))
    torch.testing.assert_close(judged.running_mean, norm.running_mean / 2)


def test_learns(fit):
    generator = torch.Generator().manual_seed(0)
    method = build("batch", momentum=0.9, weight=10.0)

    def made(step):
        label = torch.arange(48) % 3
        image = 0.5 * torch.randn(48, 2, 3, 16, 16, generator=generator) + torch.eye(3)[label][:, None, :, None, None] * 2
        return {"image": image, "label": label.where(torch.arange(48) % 2 == 0, -1), "key": rng.key(step, torch.arange(48))}

    fit(method, made, 40)
    new = made(0)
    assert (method.eval().classifier(method.encoder(new["image"][::2, 0])).argmax(1) == new["label"][::2]).all()
