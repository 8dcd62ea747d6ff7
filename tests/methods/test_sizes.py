"""Images of 96 pixels instead of 32: what methods build for a size, they build for this one, too."""

import inspect

import pytest
import torch

from selfsup import methods
from tests.methods import test_contract as contract

SIZE, N = 96, 4
SIZED = [name for name in methods.names() if 'card["size"]' in inspect.getsource(methods.load(name))]


@pytest.mark.parametrize("name", SIZED)
def test_a_method_takes_larger_images(name, monkeypatch):
    card, columns = contract.card()
    random = torch.Generator().manual_seed(0)
    columns = {key: column[:N] for key, column in columns.items()} | {"epoch": torch.zeros(N, dtype=torch.int64)}
    columns["image"] = torch.randint(256, (N, 3, SIZE, SIZE), dtype=torch.uint8, generator=random)
    columns["frames"] = torch.randint(256, (N, 4, 3, SIZE, SIZE), dtype=torch.uint8, generator=random)
    columns["flow"] = torch.randint(-20, 20, (N, 3, 2, SIZE, SIZE), generator=random).short()
    card |= {"size": SIZE, "schema": {**card["schema"], "frames": {"shape": [4, 3, SIZE, SIZE]}}}
    monkeypatch.setattr(contract, "CARD", card)
    method = contract.build(name)
    batch = method.inputs(columns, 0, card["mean"], card["std"])
    loss = method(batch)["loss"]
    assert loss.isfinite() and any(value.shape[-1] == SIZE for value in batch.values())


def test_most_methods_need_not_know_the_size():
    assert 10 < len(SIZED) < len(methods.names()) / 2
