"""A film of a scene: the camera moves, and so does the object, each as fast in all frames; and the truth about it.

A pose is what the camera did since the first frame: how far it went to the right and how far it was tilted down, in
shares of the image's side, by what share things became larger (zoom), and tan(half the angle that it rolled by), so
that things turn clockwise. Where it goes to the right, what is near passes faster than what is far
(parallax)."""

import numpy as np
import torch

from selfsup.core import rng
from selfsup.core.moving import UNIT

FRAMES = 4
RATE = .03  # most of each of a pose's four numbers from frame to frame
MARGIN = 1 / 3  # how far scenes go on beyond the image's border, so that no edge comes into view


def moving(s):
    """How things move from one frame to the next: the camera's pose (N, 4), and object and prop (N, 2, 2: each x, y),
    in shares of the image's side. The object goes sideways, a little nearer or farther too; the prop stays."""
    u = rng.uniform(torch.from_numpy(s["key"]), 8, salt=5).double().numpy()
    pose = RATE * (2 * u[:, :4] - 1)
    across = np.where(u[:, 4] < .5, -1, 1) * (.03 + .03 * u[:, 5])
    things = np.zeros((len(u), 2, 2))
    things[:, 0] = np.stack([across, .02 * (2 * u[:, 6] - 1)], 1)
    return pose, things


def poses(s):
    """(N, FRAMES, 4), float32."""
    return (np.arange(FRAMES)[:, None] * moving(s)[0][:, None]).astype(np.float32)


def at(s, number):
    """The description of a frame: where its things stand as seen from where the camera then is, with its pose and, as
    `grain`, the keys of its noise. Frame 0 has those of the description itself."""
    pose, things = moving(s)
    place = np.stack([s["x"], s["y"]], 2) + number * things
    x = place[:, :, 0] - number * pose[:, :1] * nearness(s["horizon"][:, None], place[:, :, 1])
    grain = rng.key(torch.from_numpy(s["key"]), number).numpy() if number else s["key"]
    return {**s, "x": x, "y": place[:, :, 1], "pose": number * pose, "grain": grain}


def nearness(horizon, y):
    """How fast what stands at y passes, as a share of how fast the camera goes: half as fast at the horizon as at the
    image's lower border, and beyond the horizon all alike."""
    return .5 + .5 * np.maximum((y - horizon) / (1 - horizon), 0)


def seen(s, x, y):
    """Where in the scene a camera that has rolled, zoomed and tilted sees the image's points x (1, 1, W) and y (1, H,
    1): both (N, H, W). Without a pose they stay."""
    if "pose" not in s:
        return x, y
    _, tilt, zoom, roll = (s["pose"][:, i, None, None] for i in range(4))
    cos, sin = (1 - roll * roll) / (1 + roll * roll), 2 * roll / (1 + roll * roll)
    x, y = (x - np.float32(.5)) / (1 + zoom), (y - np.float32(.5)) / (1 + zoom)
    return cos * x + sin * y + np.float32(.5), cos * y - sin * x + np.float32(.5) + tilt


def shown(pose, x, y):
    """The inverse of `seen`: where in the image a pose (N, 4) shows the scene's points."""
    _, tilt, zoom, roll = (pose[:, i, None, None] for i in range(4))
    cos, sin = (1 - roll * roll) / (1 + roll * roll), 2 * roll / (1 + roll * roll)
    x, y = x - .5, y - .5 - tilt
    return (1 + zoom) * (cos * x - sin * y) + .5, (1 + zoom) * (sin * x + cos * y) + .5


def behind(s, x, y):
    """Which x of the ground, and of what is behind it, is seen at (x, y) from where the camera has gone to."""
    return x + s["pose"][:, :1, None] * nearness(s["horizon"][:, None, None], y) if "pose" in s else x


# The truth, for judges


def mask(s, distances):
    """What is seen at each pixel, by the `distances` (N, 2, H, W) of `render.outlines`: 0 the background, 1 the object,
    2 the prop. uint8 (N, H, W)."""
    inside, front = distances < 0, (s["y"][:, 0] > s["y"][:, 1])[:, None, None]  # as they are painted, far to near
    thing, prop = inside[:, 0], inside[:, 1]
    return np.where(thing & (front | ~prop), 1, np.where(prop, 2, 0)).astype(np.uint8)


def boxes(distances):
    """Left, top, right and bottom of object and prop, hidden parts included, in shares of the image's side; 0 where
    nothing is within it. float32 (N, 2, 4)."""
    inside, side = distances < 0, distances.shape[3]
    found = []
    for axis in (2, 3):  # over rows: which columns; over columns: which rows
        hit = inside.any(axis)
        there = hit.any(2)
        found.append(np.where(there, hit.argmax(2), 0))
        found.append(np.where(there, side - hit[:, :, ::-1].argmax(2), 0))
    left, right, top, bottom = found
    return np.stack([left, top, right, bottom], 2).astype(np.float32) / np.float32(side)


def flow(s, masks, number, x, y):
    """Where what is seen at each pixel of a frame is in the next one, less where it is: int16 (N, 2, H, W), x and y, in
    1/16 pixel. masks (N, H, W): that frame's."""
    here, there = at(s, number), at(s, number + 1)
    sx, sy = seen(here, x, y)
    near = nearness(s["horizon"][:, None, None], sy)
    dx = (here["pose"] - there["pose"])[:, :1, None] * near
    dy = np.zeros_like(dx)
    for slot in (0, 1):
        on = masks == slot + 1
        dx = np.where(on, (there["x"] - here["x"])[:, slot, None, None], dx)
        dy = np.where(on, (there["y"] - here["y"])[:, slot, None, None], dy)
    tx, ty = shown(there["pose"], sx + dx, sy + dy)
    moved = np.stack([tx - x, ty - y], 1) * (x.shape[2] * UNIT)
    return np.floor(moved + .5).astype(np.int16)
