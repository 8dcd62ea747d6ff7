"""ClusterFit: cross-entropy on the data set's column, and nothing of the teacher but that."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.clusterfit import ClusterFit


def build(norm="group"):
    torch.manual_seed(0)
    return ClusterFit(nets.build("convnet", width=4, norm=norm), {"clusters": 7, "classes": ["a", "b"]})


def test_loss_and_accuracy_against_loops():
    method, x, cluster = build().eval(), torch.randn(6, 3, 16, 16), torch.tensor([6, 0, 3, 3, 1, 5])
    losses, right = [], []
    for image, number in zip(x, cluster.tolist()):
        with torch.no_grad():
            logits = method.classifier(method.encoder(image[None]))[0].double().numpy()
        assert len(logits) == 7  # the card's clusters, not its classes
        losses.append(np.log(np.exp(logits).sum()) - logits[number])
        right.append(logits.argmax() == number)
    out = method({"image": x, "cluster": cluster, "label": torch.ones(6, dtype=torch.long)})
    assert float(out["loss"].detach()) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(out["accuracy"]) == pytest.approx(np.mean(right))


def test_learns_the_clusters(fit):
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(7, 3, generator=generator) * 2 - 1

    def batch(step):
        cluster = torch.randint(7, (35,), generator=generator)
        image = colours[cluster][:, :, None, None] + 0.3 * torch.randn(35, 3, 16, 16, generator=generator)
        return {"image": image, "cluster": cluster}

    assert fit(build("batch"), batch, 30)["accuracy"] > 0.7
