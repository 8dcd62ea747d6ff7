import numpy as np
import torch

from selfsup import nets
from selfsup.methods import load


def make():
    torch.manual_seed(0)
    return load("rotation")(nets.build("convnet", width=4, norm="group"))


def test_loss_and_accuracy_against_loops(prepare):
    method = make()
    batch = prepare(method, 5)
    losses, right = [], []
    for image in batch["image"].numpy():
        for quarter in range(4):
            turned = torch.tensor(np.rot90(image, quarter, axes=(1, 2)).copy())[None]
            logits = method.classifier(method.encoder(turned)).detach().numpy()[0].astype(np.float64)
            losses.append(np.log(np.exp(logits).sum()) - logits[quarter])
            right.append(logits.argmax() == quarter)
    out = method(batch)
    assert abs(out["loss"].item() - np.mean(losses)) < 1e-5
    assert abs(out["accuracy"].item() - np.mean(right)) < 1e-6


def test_an_image_counts_the_same_however_it_comes_in(prepare):
    """All four rotations are in the batch: turning the images first changes nothing but their order."""
    method = make()
    seen = []
    method.encoder.register_forward_hook(lambda net, args, out: seen.append(args[0]))
    batch = prepare(method, 3)
    method(batch)
    method({**batch, "image": batch["image"].rot90(1, (2, 3))})
    first, second = (x.unflatten(0, (4, 3)) for x in seen)
    assert torch.equal(first[[1, 2, 3, 0]], second)


def test_learns_which_way_is_up(prepare, fit):
    """Held-out accuracy well above 25 % on images with light from above, and no better than chance on those without."""
    method = make()

    def lit(seed):
        batch = prepare(method, 32, "smooth", seed)
        return {**batch, "image": batch["image"] + torch.linspace(1, -1, 16)[:, None]}

    fit(method, lit, 40)
    method.eval()
    assert method(lit(100))["accuracy"] > 0.7
    unlit = torch.stack([method(prepare(method, 32, "noise", seed))["accuracy"] for seed in range(200, 204)])
    assert unlit.mean() < 0.4


def test_picture_shows_four_rotations(prepare):
    method = make()
    sheet = method.pictures(prepare(method, 8))["rotations"]
    assert sheet.shape == (3, 4 * 18, 8 * 18) and 0 <= sheet.min() and sheet.max() <= 1
    upright, turned = sheet[:, 1:17, 1:17], sheet[:, 19:35, 1:17]
    assert torch.equal(upright.rot90(1, (1, 2)), turned)
