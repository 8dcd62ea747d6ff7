"""FixMatch against Algorithm 1 written as loops, what gets a gradient, and what is judged."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.data.order import Labelled
from selfsup.methods.fixmatch import FixMatch


def build(norm="group", card={"classes": ["a", "b", "c"]}, **args):
    torch.manual_seed(0)
    return FixMatch(nets.build("convnet", width=4, norm=norm), card, **{"ratio": 3, "threshold": 0.5, **args})


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def fixmatch(labelled, weak, strong, label, threshold):
    """Algorithm 1, lines 2 to 6: (ℓ_s, ℓ_u, share of confident ones), from logits, image by image."""
    supervised = np.mean([-np.log(softmax(z)[y]) for z, y in zip(labelled, label)])
    total, sure = 0.0, 0
    for w, s in zip(weak, strong):
        q = softmax(w)
        if q.max() >= threshold:
            total, sure = total - np.log(softmax(s)[q.argmax()]), sure + 1
    return supervised, total / len(weak), sure / len(weak)  # over all μB, not over the confident ones


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9])
def test_loss_is_algorithm_1(threshold):
    method = build(threshold=threshold, weight=2.0).eval()
    with torch.no_grad():
        method.classifier.weight.mul_(30)  # so that it is sure of some
    x, label = torch.randn(8, 2, 3, 16, 16), torch.tensor([2, -1, -1, -1, 0, -1, -1, -1])
    with torch.no_grad():
        z = method.classifier(method.encoder(x.flatten(0, 1))).view(8, 2, 3).double().numpy()
    first, others = [0, 4], [1, 2, 3, 5, 6, 7]
    supervised, consistency, sure = fixmatch(z[first, 0], z[others, 0], z[others, 1], [2, 0], threshold)
    assert sure > 0 and consistency > 0
    out = method({"image": x, "label": label})
    expected = {"loss": supervised + 2 * consistency, "labelled": supervised, "unlabelled": consistency,
                "confident": sure, "accuracy": np.mean(z[first, 0].argmax(1) == [2, 0])}
    assert {name: float(value.detach()) for name, value in out.items()} == pytest.approx(expected, rel=1e-5)


def test_sharpened_shares_are_udas_target():
    """google-research/uda, image/main.py: KL from softmax(weak / T), of which FixMatch's is the limit; the mask is of the
    shares as they are."""
    labelled, label, weak, strong = torch.randn(2, 3), torch.tensor([0, 1]), 2 * torch.randn(6, 3), torch.randn(6, 3)

    def of(temperature):
        z = strong.clone().requires_grad_()
        build(threshold=0.7, temperature=temperature).objective(labelled, weak, z, label)["loss"].backward()
        return z.grad

    target = (weak / 0.4).softmax(1)
    mask = (weak.softmax(1).amax(1) >= 0.7).float()
    assert 0 < mask.sum() < 6
    torch.testing.assert_close(of(0.4), (strong.softmax(1) - target) * mask[:, None] / 6)
    torch.testing.assert_close(of(None), of(1e-3))


def test_the_mask_chooses_samples():
    """The second bug of the sheet's section 6: a mask (B, 1) times losses (B,) is (B, B), and scales all alike. With
    the losses .1, .1, 3, 3 and the first two confident it gives .775 in place of .05."""
    p = (-torch.tensor([0.1, 0.1, 3.0, 3.0])).exp()  # of the right class
    strong = torch.stack([p, (1 - p) / 2, (1 - p) / 2], 1).log()
    weak = torch.tensor([[9.0, 0, 0], [9.0, 0, 0], [0.1, 0, 0], [0.1, 0, 0]])
    out = build(threshold=0.95).objective(torch.zeros(4, 3), weak, strong, torch.zeros(4, dtype=torch.long))
    assert float(out["unlabelled"]) == pytest.approx(0.05, rel=1e-5)


def test_only_strong_views_of_confident_images_get_a_gradient():
    labelled, weak, strong = (torch.randn(n, 3, requires_grad=True) for n in (2, 6, 6))
    method = build(threshold=0.6)
    method.objective(labelled, weak, strong, torch.tensor([0, 1]))["loss"].backward()
    sure = weak.softmax(1).amax(1) >= 0.6
    assert sure.any() and not sure.all()
    assert weak.grad is None and labelled.grad.abs().sum(1).all()  # the target is no way for the gradient
    assert torch.equal(strong.grad.abs().sum(1) > 0, sure)


def test_labels_of_the_others_are_never_read():
    method, x = build().eval(), torch.randn(8, 2, 3, 16, 16)
    label = torch.tensor([2, -1, -1, -1, 0, -1, -1, -1])
    shown = torch.tensor([2, 0, 1, 2, 0, 1, 2, 0])  # those of the whole split, the labelled ones too
    assert torch.equal(method({"image": x, "label": label})["loss"], method({"image": x, "label": shown})["loss"])
    assert method.order == Labelled(3)


def test_what_is_judged_is_the_average_with_its_statistics():
    """One that leaves BatchNorm's statistics behind, at 0 and 1, judges noise (pytorch/ignite#2590)."""
    method = build("batch", momentum=0.9)
    expected = {name: value.clone() for name, value in method.average.module.state_dict().items()}
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1)
    for step in range(3):
        method({"image": torch.randn(8, 2, 3, 16, 16), "label": torch.zeros(8, dtype=torch.long)})["loss"].backward()
        optimizer.step()
        method.after_step((step + 1) / 3)
        online = [*method.encoder.state_dict().values(), *method.classifier.state_dict().values()]
        for (name, mean), value in zip(expected.items(), online):
            expected[name] = 0.9 * mean + 0.1 * value if mean.is_floating_point() else value.clone()
    parts = method.parts()
    found = [*parts["encoder"].state_dict().values(), *parts["classifier"].state_dict().values()]
    for mean, value in zip(expected.values(), found, strict=True):
        torch.testing.assert_close(value, mean)
    assert parts["encoder"].blocks[0][1].running_mean.abs().sum() > 0
    assert not any(p.requires_grad for part in parts.values() for p in part.parameters())


def test_learns_from_images_without_a_label(card, prepare, fit):
    """Labelled are dark and bright images with a mark that tells them apart as well; what the others have is brightness."""
    generator = torch.Generator().manual_seed(0)
    method = build("batch", card={"classes": ["dark", "bright"]}, ratio=3, threshold=0.7, momentum=0.9)

    def batch(step):
        label = torch.randint(2, (32,), generator=generator)
        image = 0.5 * torch.randn(32, 2, 3, 16, 16, generator=generator) + (2.0 * label - 1)[:, None, None, None, None]
        return {"image": image, "label": label.where(torch.arange(32) % 4 == 0, -1)}

    assert fit(method, batch, 40)["confident"] > 0.9
    for step in range(20):
        method.after_step(1)
    net = torch.nn.Sequential(*method.parts().values()).eval()
    new = batch(0)
    assert (net(new["image"][::4, 0]).argmax(1) == new["label"][::4]).all()
