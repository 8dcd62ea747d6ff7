import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.prototypical import Prototypical


def algorithm_1(features, ways, shots, queries):
    """Of one episode, in the order in which it is dealt: (loss, accuracy), by loops."""
    z = features.reshape(ways, shots + queries, -1)
    means = [z[k, :shots].mean(0) for k in range(ways)]
    loss, right = 0.0, 0
    for k in range(ways):
        for x in z[k, shots:]:
            far = np.array([((x - c) ** 2).sum() for c in means])
            loss += (far[k] + np.log(np.exp(-far).sum())) / (ways * queries)
            right += far.argmin() == k
    return loss, right / (ways * queries)


@pytest.mark.parametrize("ways, shots, queries", [(4, 1, 3), (2, 5, 3)])
def test_is_the_papers_algorithm(prepare, ways, shots, queries):
    """Excludes squared distances for their roots, and an image that is in the support and among the queries."""
    method = Prototypical(nets.build("convnet", width=4), ways, shots, queries).eval()
    batch = prepare(method, 3 * ways * (shots + queries))
    out = method(batch)
    features = method.encoder(batch["image"]).detach().double().numpy().reshape(3, ways * (shots + queries), -1)
    loss, accuracy = np.mean([algorithm_1(some, ways, shots, queries) for some in features], axis=0)
    assert out["loss"].item() == pytest.approx(loss, rel=1e-5) and out["accuracy"].item() == pytest.approx(accuracy)


def test_its_order_is_that_of_its_arguments():
    method = Prototypical(nets.build("convnet", width=2), ways=3, shots=2, queries=4)
    assert method.order.group == 18 and method.inputs.columns == ("image",)
