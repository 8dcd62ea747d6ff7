"""What is computed of networks' outputs does not round as they do."""

import torch

from selfsup.core.precision import cross_entropy, float32


@float32
def products(a, others, scale=1.0):
    return [a @ other.T * scale for other in others]


def test_float32_inside_whatever_comes_in():
    a, b = torch.randn(4, 8), torch.randn(4, 8)
    exact = products(a.bfloat16().float(), [b])[0]
    with torch.autocast("cpu", torch.bfloat16):
        for first, second in ((a.bfloat16(), b), (a.bfloat16().float(), b)):
            assert torch.equal(products(first, [second])[0], exact)
        assert (a @ b.T).dtype == torch.bfloat16  # again as before
        assert products(a.double(), (b.double(),))[0].dtype == torch.float64
    logits = torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0, 1, 2, 0]))
    loss.backward()
    assert loss.dtype == torch.float32 and logits.grad.dtype == torch.bfloat16
