"""Films in the report: flow in the usual colours, what was found to move beside the truth, and what was followed."""

import numpy as np
import torch

from selfsup.core.moving import UNIT, carried, moving, window
from selfsup.report.panels import Panel
from selfsup.report.pictures import png

SHOWN, SIDE, LARGER = 8, 0.5, 3                          # films; of the followed square, a share; pixels a pixel
WHEEL = (15, 6, 4, 11, 13, 6)                            # steps from red to yellow, green, cyan, blue, magenta and back


def panel(name, card, sample):
    """The Panel of a data set whose `columns` have frames and flow; None of another one."""
    from markupsafe import Markup

    if not {"frames", "flow"} <= sample.columns.keys():
        return None
    frames, flow = sample.columns["frames"], sample.columns["flow"]
    mean, std = (torch.tensor(card[key]).view(-1, 1, 1) for key in ("mean", "std"))
    found = torch.cat([moving((x / 255 - mean) / std, u) for x, u in zip(frames.split(100), flow.split(100))])
    side = max(1, round(SIDE * frames.shape[-1]))
    corner, _ = window(found, side)
    tracks = carried(corner, side, flow, found)
    rows = [outlined(frames[:SHOWN, 0], tracks[:SHOWN, 0], side), outlined(frames[:SHOWN, -1], tracks[:SHOWN, -1], side),
            colours(flow[:SHOWN, 0]), grey(found[:SHOWN] > 0.5)]
    words = ["first frame, last frame", "flow from the first to the next", "what was found to move"]
    if "mask" in sample.columns:
        rows.append(grey(sample.columns["mask"][:SHOWN] == 1))
        words.append("what does")
    sheet = np.concatenate([np.concatenate([np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=255) for x in row], 1)
                            for row in rows])
    picture = f'<img class="pixels" src="{png(sheet)}" width="{LARGER * sheet.shape[1]}" alt="films of {name}">'
    return Panel(f"films-{name}", f"Films of {name}",
                 f"From top to bottom: {'; '.join(words)}. White squares: what is followed by its flow. Hue: the "
                 "direction of the flow, as on Middlebury's wheel; the stronger the colour, the faster.",
                 sentences=list(measured(sample.columns, found, tracks, side)), figure=Markup(picture))


def measured(columns, found, tracks, side):
    """How well what was found, and followed, agrees with the truth, in sentences; none where that is not known."""
    if "mask" in columns:
        truth = columns["mask"] == 1
        own, every = (100 * iou(guess, truth) for guess in (found > 0.5, torch.ones_like(truth)))
        yield (f"What the flow finds to move has an IoU of {own:.0f} % with what does, a mean over {len(truth):,} films; to "
               f"take every pixel for it {every:.0f} %.")
    if "boxes" in columns and columns["boxes"].shape[1] == tracks.shape[1]:
        boxes = columns["boxes"][:, :, 0] * columns["frames"].shape[-1]
        first, last = (100 * box_iou(tracks[:, t], side, boxes[:, t]) for t in (0, -1))
        stays = 100 * box_iou(tracks[:, 0], side, boxes[:, -1])
        yield (f"The square that is followed has an IoU of {first:.0f} % with the box of what moves in the first frame and of "
               f"{last:.0f} % in the last one, where it would have {stays:.0f} % if it had stayed; those are the pairs of "
               "`tracking`.")


def iou(guess, truth):
    both, either = ((x.flatten(1).sum(1)) for x in (guess & truth, guess | truth))
    return (both / either.clamp(min=1)).mean().item()


def box_iou(corner, side, boxes):
    """The mean IoU of squares with corners (N, 2), top and left, with boxes (N, 4): left, top, right, bottom; in pixels."""
    (top, left), (west, north, east, south) = corner.float().unbind(1), boxes.unbind(1)
    wide = (torch.minimum(left + side, east) - torch.maximum(left, west)).clamp(min=0)
    high = (torch.minimum(top + side, south) - torch.maximum(top, north)).clamp(min=0)
    return (wide * high / ((east - west) * (south - north) + side**2 - wide * high)).mean().item()


def colours(flow):
    """uint8 (N, H, W, 3) of flow (N, 2, H, W) in 1/UNIT pixel, in the colours of the Middlebury benchmark: white
    where nothing moves, the full colour of its direction where what moves fastest does."""
    u = flow.double().numpy() / UNIT
    speed = np.sqrt((u**2).sum(1))
    speed /= max(speed.max(), 1e-9)
    wheel = np.array([colour for start, count in enumerate(WHEEL) for colour in arc(start, count)])
    place = (np.arctan2(-u[:, 1], -u[:, 0]) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = np.floor(place).astype(int)
    part = (place - low)[..., None]
    colour = wheel[low] * (1 - part) + wheel[(low + 1) % len(wheel)] * part
    return (255 * (1 - speed[..., None] * (1 - colour))).round().astype(np.uint8)


def arc(start, count):
    """Colours, in 0 to 1, from one of six corners of the wheel on to the next."""
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], float)
    share = (np.arange(count) / count)[:, None]
    return corners[start] * (1 - share) + corners[(start + 1) % 6] * share


def grey(masks):
    return np.repeat(masks.numpy()[..., None] * np.uint8(255), 3, 3)


def outlined(images, corner, side):
    """uint8 (N, H, W, 3) of images (N, C, H, W), each with a square of white lines."""
    out = images.permute(0, 2, 3, 1).numpy().copy()
    for image, (top, left) in zip(out, corner.tolist()):
        bottom, right = top + side - 1, left + side - 1
        image[[top, bottom], left:right + 1] = 255
        image[top:bottom + 1, [left, right]] = 255
    return out
