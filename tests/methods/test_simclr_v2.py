"""SimCLR v2's pretraining: SimCLR's loss under a deeper projector, which the encoder folder keeps."""

import torch

from selfsup import encoder, nets
from selfsup.methods.simclr import SimCLR
from selfsup.methods.simclr_v2 import SimCLRv2
from selfsup.training.losses import nt_xent


def test_is_simclr_with_a_projector_of_three_layers():
    net = nets.build("convnet", width=4, norm="group")
    torch.manual_seed(0)
    new = SimCLRv2(net, hidden=16, dim=8, temperature=0.2)
    torch.manual_seed(0)
    old = SimCLR(net, hidden=16, dim=8, temperature=0.2, layers=3)
    batch = {"image": torch.randn(5, 2, 3, 16, 16)}
    for name, value in new(batch).items():
        torch.testing.assert_close(value, old(batch)[name])
    loss, accuracy = nt_xent(*new.project(batch), 0.2)
    assert torch.equal(loss, new(batch)["loss"]) and torch.equal(accuracy, new(batch)["accuracy"])
    assert SimCLRv2(net).projector.config["hidden"] == net.dim


def test_the_folder_keeps_the_projector(tmp_path):
    method = SimCLRv2(nets.build("convnet", width=4), dim=8).eval()
    info = {"mean": [0.5] * 3, "std": [0.25] * 3, "size": 16, "dim": 32, "classes": ["a", "b"]}
    info |= {"run": "t-a", "method": "simclr_v2", "seed": 0, "data": {"name": "t", "hash": "0" * 64}, "args": {}, "train": {}}
    encoder.save(tmp_path, method.parts(), {**info, "images": 1, "steps": 1, "code": "0" * 64})
    x = torch.randn(3, 3, 16, 16)
    net, projector = (encoder.load(tmp_path, part=part) for part in ("encoder", "projector"))
    assert torch.equal(projector(net(x)), method.projector(method.encoder(x)))
