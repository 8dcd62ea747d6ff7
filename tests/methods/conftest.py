"""Small data for the tests of methods: batches as the trainer makes them, through the method's own `inputs`."""

import pytest
import torch

from selfsup.training.measure import scalars, spread_of


@pytest.fixture
def card():
    """A data card of 16-pixel images in three classes."""
    return {
        "name": "tiny",
        "size": 16,
        "channels": 3,
        "columns": ["image", "label"],
        "classes": ["a", "b", "c"],
        "counts": {"train": 64, "val": 16, "test": 16},
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }


def smooth(n, size, generator):
    """uint8 images (n, 3, size, size) that vary slowly: what is missing can be told from its surroundings."""
    coarse = torch.rand(n, 3, 3, 3, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    return (fine.clamp(0, 1) * 255).byte()


@pytest.fixture
def prepare(card):
    """prepare(method, n, kind): n random images ("noise" or "smooth"), labelled, through `method.inputs`."""

    def make(method, n=8, kind="noise", seed=0, epoch=0):
        generator = torch.Generator().manual_seed(seed)
        shape = (n, 3, card["size"], card["size"])
        batch = {
            "image": smooth(n, card["size"], generator)
            if kind == "smooth"
            else torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
            "label": torch.arange(n) % len(card["classes"]),
            "index": torch.arange(n) + n * seed,
            "epoch": torch.full((n,), epoch),
        }
        return method.inputs(batch, 0, card["mean"], card["std"])

    return make


@pytest.fixture
def fit():
    """fit(method, batch_of_step, steps): plain AdamW over the method's own groups; the last step's scalars."""

    def run(method, batches, steps, lr=3e-3):
        method.train()
        groups = [{"params": g["params"], "lr": lr * g.get("lr_scale", 1.0)} for g in method.param_groups()]
        optimizer = torch.optim.AdamW(groups)
        for step in range(steps):
            out = method(batches(step))
            optimizer.zero_grad()
            out["loss"].backward()
            optimizer.step()
        return {name: value.item() for name, value in {**scalars(out), **spread_of(out)}.items()}

    return run
