"""Images that tests of views are made of."""

import torch


def pictures(n=24, size=32, channels=3, seed=0):
    """Photo-like uint8 images: smooth colours with noise, and a few with flat, grey and saturated areas."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, channels, 4, 4, generator=generator)
    x = torch.nn.functional.interpolate(x, size=(size, size), mode="bilinear")
    x = (x * 1.4 - 0.2 + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    x[1], x[2, :, : size // 2] = 0.5, x[2, :1, : size // 2]
    x[3] = x[3].round()
    return (x * 255).byte()


def batch(images, index=None, epoch=0, **columns):
    index = torch.arange(len(images)) if index is None else torch.as_tensor(index)
    return {"image": images, "index": index, "epoch": torch.full_like(index, epoch), **columns}
