"""SimCLR v2's fine-tuning: where the network is cut, and that all of what is left is trained."""

import pytest
import torch

from selfsup import nets
from selfsup.data.order import Shuffled
from selfsup.errors import UserError
from selfsup.methods.simclr_v2_finetune import SimCLRv2Finetune
from selfsup.training.state import Teacher

CARD = {"classes": ["a", "b", "c"], "mean": [0.5] * 3, "std": [0.25] * 3}


def pretrained(width=4):
    torch.manual_seed(7)
    net = nets.build("convnet", width=width)
    net.mean, net.std = CARD["mean"], CARD["std"]
    projector = nets.build("mlp", d_in=net.dim, hidden=16, d_out=8, layers=3)
    for norm in (projector[1], projector[4]):
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    return Teacher(net, CARD, projector=projector)


def build(cut=1, teacher=None):
    torch.manual_seed(0)
    return SimCLRv2Finetune(nets.build("convnet", width=4), CARD, teacher or pretrained(), cut=cut)


def test_starts_from_the_projectors_first_layer():
    """Selector 1 of the authors' code: relu(bn(linear(h))), bit for bit, under a new linear layer. (Its default was
    wrong once, and cost seven points: google-research/simclr#47.)"""
    teacher, x = pretrained(), torch.randn(5, 3, 16, 16)
    method = build(teacher=teacher).eval()
    linear, norm, relu = teacher.part("projector")[:3]
    h = teacher(x)
    assert torch.equal(method.encoder(x), h)
    assert torch.equal(method.classifier[:3](h), relu(norm(linear(h))))
    assert [type(layer).__name__ for layer in method.classifier] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert method.classifier[3].weight.shape == (3, 16)
    for cut, layers in ((0, 1), (2, 7)):
        assert len(build(cut).classifier) == layers
    two = build(2, teacher).eval()
    assert torch.equal(two.classifier[:6](h), teacher.part("projector")[:6](h))


def test_everything_is_trained_and_the_teacher_stays(prepare, card):
    """Fine-tuning means the whole network, not what is above the cut (google-research/simclr#109)."""
    teacher = pretrained()
    method, before = build(teacher=teacher), {name: value.clone() for name, value in teacher.state_dict().items()}
    method(prepare(method, 6))["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())
    torch.optim.SGD(method.parameters(), lr=0.1).step()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert method.order == Shuffled(labelled=True)
    assert not [name for name, _ in method.named_parameters() if "teacher" in name]  # no second network in the checkpoint


def test_what_cannot_be_gone_on_with_is_one_sentence():
    with pytest.raises(UserError, match="another encoder, .*'width': 8.*`encoder` should be the same"):
        build(teacher=pretrained(width=8))
    with pytest.raises(UserError, match="args.cut: the projector has 3 layers, and fewer are kept: not 3"):
        build(cut=3)
    teacher = pretrained()
    del teacher.parts["projector"]
    with pytest.raises(UserError, match="holds no projector"):
        build(teacher=teacher)
