"""Optical flow, estimated from frames by the package opencv-python-headless, which is optional."""

import numpy as np

from selfsup.core.moving import UNIT
from selfsup.errors import UserError

LARGER = 4  # times: small frames hold too few pixels for the estimator's patches


def needed():
    """The package, or a UserError that says how to get it."""
    try:
        import cv2
    except ImportError:
        raise UserError("the column flow needs the package opencv-python-headless: "
                        "pip install opencv-python-headless") from None
    return cv2


def estimated(frames):
    """Where what is seen in each of frames (T, H, W, 3), uint8, is in the next one, less where it is: int16 (T - 1, 2,
    H, W), x and y, in 1/UNIT pixel.

    By dense inverse search (Kroeger et al. 2016, https://arxiv.org/abs/1603.03590) in its setting "medium", of the
    frames enlarged; its parts of pixels are averaged."""
    cv2 = needed()
    cv2.setNumThreads(1)
    height, width = frames.shape[1:3]
    grey = [cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (LARGER * width, LARGER * height),
                       interpolation=cv2.INTER_CUBIC) for frame in frames]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found = np.stack([search.calc(one, other, None) for one, other in zip(grey, grey[1:])])
    mean = found.reshape(-1, height, LARGER, width, LARGER, 2).mean((2, 4), dtype=np.float64) / LARGER
    return np.floor(mean * UNIT + 0.5).astype(np.int16).transpose(0, 3, 1, 2)
