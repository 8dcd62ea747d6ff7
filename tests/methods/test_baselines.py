import numpy as np
import torch

from selfsup import nets
from selfsup.methods import load


def test_random_trains_nothing(prepare):
    encoder = nets.build("convnet", width=4)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    method = load("random")(encoder)
    assert not any(p.requires_grad for p in method.parameters())
    assert [p for group in method.param_groups() for p in group["params"]] == []
    out = method(prepare(method))
    assert out["loss"] == 0 and not out["loss"].requires_grad
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert method.parts() == {"encoder": encoder}


def test_supervised_loss_against_loops(card, prepare):
    torch.manual_seed(0)
    method = load("supervised")(nets.build("convnet", width=4, norm="group"), card)
    assert set(method.inputs.columns) == {"image", "label"}
    batch = prepare(method, 7)
    logits = method.classifier(method.encoder(batch["image"])).detach().numpy().astype(np.float64)
    assert logits.shape == (7, len(card["classes"]))
    losses = [np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, batch["label"])]
    out = method(batch)
    assert abs(out["loss"].item() - np.mean(losses)) < 1e-5
    assert abs(out["accuracy"].item() - np.mean(logits.argmax(1) == batch["label"].numpy())) < 1e-6


def test_supervised_learns(card, prepare, fit):
    torch.manual_seed(0)
    method = load("supervised")(nets.build("convnet", width=4), card)

    def batch(step):
        made = prepare(method, 32, seed=step)
        return {**made, "image": made["image"] + made["label"].view(-1, 1, 1, 1)}  # classes differ in brightness

    fit(method, batch, 40)
    assert method.eval()(batch(100))["accuracy"] > 0.9
