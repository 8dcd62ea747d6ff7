import math

import pytest
import torch

from selfsup import nets
from selfsup.methods.ambient_sound import AmbientSound


def test_the_sounds_cluster_is_read_off_the_image_alone():
    torch.manual_seed(0)
    method = AmbientSound(nets.build("convnet", width=4), {"clusters": 5})
    assert method.inputs.columns == ("image", "cluster"), "nothing is heard"
    batch = {"image": torch.randn(6, 3, 16, 16), "cluster": torch.tensor([0, 4, 2, 2, 1, 3])}
    out = method.eval()(batch)
    loss = right = 0
    logits = method.encoder(batch["image"]) @ method.classifier.weight.T + method.classifier.bias
    for row, cluster in zip(logits.tolist(), batch["cluster"].tolist()):
        loss += (math.log(sum(map(math.exp, row))) - row[cluster]) / 6
        right += (row.index(max(row)) == cluster) / 6
    assert float(out["loss"]) == pytest.approx(loss, rel=1e-4) and float(out["accuracy"]) == pytest.approx(right)
