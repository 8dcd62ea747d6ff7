"""What encoders of images have in common."""

import torch
import torch.nn as nn

from ..core.middle import middle_view


class ImageEncoder(nn.Module):
    """Images (N, channels, H, W) -> features (N, dim). A subclass sets `dim` and defines `layers`.

    An encoder says which column of the data it takes and prepares that column itself. One of another column than
    images is any module with `takes`, `prepare`, `dim` and `forward` (`layers` and `features` for what asks for maps);
    what its `prepare` needs to know of the data it is told by `normalised_with`, and keeps in buffers or arguments.
    """

    takes = "image"
    channels = 3
    mean = std = None  # of each channel, lists as on the data card; until `normalised_with` nothing can be prepared
    size = None  # pixels a side of what it is trained on, where that is known; of larger images it sees the middle

    def normalised_with(self, card):
        """Take the mean and standard deviation of images from the data card."""
        self.mean, self.std = card["mean"], card["std"]

    def prepare(self, column):
        """Images as readers give them, uint8 or uint16 (N, C, H, W), -> what `forward` takes, on the same device:
        float32, the range of the type as 0 to 1, less the mean and divided by the standard deviation; of another size
        than its own, their middle (core/middle.py)."""
        mean, std = (torch.as_tensor(v, dtype=torch.float32, device=column.device).view(-1, 1, 1)
                     for v in (self.mean, self.std))

        def normalised(part):
            return part.float().div_(torch.iinfo(part.dtype).max).sub_(mean).div_(std)

        return middle_view(column, self.size or column.shape[-1], normalised)

    def layers(self, x):
        """Maps (N, C, h, w) from shallow to deep."""
        raise NotImplementedError

    def features(self, x):
        """The last map, (N, dim, h, w), before pooling."""
        return self.layers(x)[-1]

    def forward(self, x):
        return self.features(x).mean((2, 3))
