"""Maps of features and what is known of pixels, at another resolution."""

import torch.nn.functional as F


def at_side(x, side):
    """Maps (N, C, h, w) of another resolution, (N, C, side, side): means of pixels, or linearly between them."""
    if x.shape[2] >= side:
        return F.adaptive_avg_pool2d(x, side)
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
