"""Splits held in memory, so that a protocol's arithmetic is tested on data of any shape, and reads can be counted."""

from types import SimpleNamespace

import pytest
import torch

from selfsup import nets
from selfsup.core import rng
from selfsup.layers import ImageEncoder


class ArraySplit:
    columns = {"image", "label"}

    def __init__(self, images, labels, classes):
        self.images, self.labels, self.reads = images, labels, 0
        self.card = {"classes": [f"class{i}" for i in range(classes)]}

    def __len__(self):
        return len(self.images)

    def in_order(self, batch=512):
        self.reads += 1
        for index in torch.arange(len(self)).split(batch):
            yield {"image": self.images[index], "label": self.labels[index], "index": index}

    def batches(self, seed, batch, images):
        for step in range(images // batch):
            position = torch.arange(step * batch, (step + 1) * batch)
            epoch, place = position // len(self), position % len(self)
            index = torch.stack([rng.permutation(len(self), seed, e)[i] for e, i in zip(epoch, place)])
            yield {"image": self.images[index], "label": self.labels[index], "index": index, "epoch": epoch}


class Flatten(ImageEncoder):
    """An encoder whose features are the normalised pixels."""

    def __init__(self):
        super().__init__()
        self.mean, self.std = [0.5] * 3, [0.25] * 3
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.dim = 27

    def layers(self, x):
        return [x[:, :, :1, :1] * self.scale, x * self.scale]

    def forward(self, x):
        return x.flatten(1) * self.scale


def blobs(n, seed, classes=4, noise=60.0, size=3):
    """Images (n, 3, size, size) uint8 scattered around one image a class, and their classes."""
    centres = torch.rand(classes, 3, size, size, generator=torch.Generator().manual_seed(99)) * 255
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    images = centres[labels] + noise * torch.randn(n, 3, size, size, generator=generator)
    return images.clamp(0, 255).to(torch.uint8), labels


@pytest.fixture
def encoder():
    return Flatten()


@pytest.fixture
def data():
    train, val, test = (ArraySplit(*blobs(n, seed), classes=4) for seed, n in enumerate((400, 200, 200)))
    return SimpleNamespace(train=train, val=val, test=test, card=val.card, seed=0, val_labels=None)


@pytest.fixture
def stripes(data):
    """Classes told apart by direction and colour, which crops and flips leave as they are: separable by a trained
    net."""
    for seed, split in enumerate((data.train, data.val, data.test)):
        wave = 127 * torch.ones(4, 3, 16, 16)
        for c in range(4):
            ramp = torch.arange(16) % 4 // 2 * 255.0
            wave[c, c // 2] = ramp[:, None].expand(16, 16) if c % 2 else ramp.expand(16, 16)
        noise = 20 * torch.randn(len(split), 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        split.images = (wave[split.labels] + noise).clamp(0, 255).to(torch.uint8)
    return data


@pytest.fixture
def net():
    torch.manual_seed(3)
    net = nets.build("convnet", width=4)
    net.mean, net.std = [0.5] * 3, [0.25] * 3
    return net.eval().requires_grad_(False)              # as selfsup.load gives it
