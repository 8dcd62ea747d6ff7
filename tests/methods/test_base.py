"""What several methods use: how far embeddings spread."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.training.measure import spread


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 999))
def test_spread_is_the_papers(n, d, seed):
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    found = spread(z)
    singular = np.linalg.svd(z.double().numpy(), compute_uv=False)
    share = singular / singular.sum()
    assert float(found["rank"]) == pytest.approx(math.exp(-(share * np.log(share + 1e-30)).sum()), rel=1e-4)
    unit = (z / z.norm(dim=1, keepdim=True)).double().numpy()
    assert float(found["std"]) == pytest.approx(np.mean([unit[:, i].std(ddof=1) for i in range(d)]) * math.sqrt(d), rel=1e-5)


def test_spread_tells_collapse():
    full = F.normalize(torch.randn(4000, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    assert float(spread(full)["std"]) == pytest.approx(1, abs=0.02) and float(spread(full)["rank"]) > 15.9
    point = full[:1].expand(100, -1)
    assert float(spread(point)["std"]) < 1e-6 and float(spread(point)["rank"]) < 1.01
    line = full[:1] * torch.linspace(-1, 1, 100)[:, None]  # a dimension, not a point: the rank tells
    assert float(spread(line)["rank"]) < 1.01
    assert not spread(full.requires_grad_())["std"].requires_grad
    assert float(spread(torch.zeros(8, 4))["rank"]) == 1  # a point in the origin, and no number that ends the training
