"""Average precision of boxes, by COCO's rules (Lin et al. 2014, https://arxiv.org/abs/1405.0312)."""

import torch
import torch.nn.functional as F

THRESHOLDS = tuple(0.5 + 0.05 * i for i in range(10))  # of the IoU from which on a box is found
RECALLS = 101  # places at which precision is read
TINY = 1e-12


def iou(a, b):
    """Of boxes (…, A, 4) and (…, B, 4), left, top, right and bottom: (…, A, B); 0 where both are empty."""
    low = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    area = [(x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (a, b)]
    return both / (area[0][..., :, None] + area[1][..., None, :] - both).clamp(min=torch.finfo(a.dtype).tiny)


def matched(boxes, kinds, true_boxes, true_kinds, thresholds=THRESHOLDS):
    """Which guesses find a true box: bool (N, T, D).

    boxes (N, D, 4), the likeliest first, and kinds (N, D), -1 where there is none; true_boxes (N, G, 4) and true_kinds
    (N, G), too. In this order each guess takes the true box of its kind, not taken yet, that it overlaps most, if by
    the threshold or more.
    """
    overlap = iou(boxes, true_boxes) * ((kinds[:, :, None] == true_kinds[:, None]) & (kinds[:, :, None] >= 0))
    levels = torch.tensor(thresholds, device=boxes.device, dtype=boxes.dtype)
    free = torch.ones(len(boxes), len(thresholds), true_boxes.shape[1], dtype=torch.bool, device=boxes.device)
    found = torch.zeros(*free.shape[:2], boxes.shape[1], dtype=torch.bool, device=boxes.device)
    for d in range(boxes.shape[1]):
        most, which = (overlap[:, d, None] * free).max(2)
        found[:, :, d] = most >= levels
        free &= ~(F.one_hot(which, free.shape[2]).bool() & found[:, :, d, None])
    return found


class Precision:
    """Average precision of guesses of boxes in N images, whichever of the images are counted, and how often each.

    scores, kinds: (N, D); hit: bool (N, T, D), of `matched`; true_kinds (N, G); -1 stands for none. Of each kind and
    threshold the guesses of all images are gone through, the likeliest first; the precision at a recall is the best at
    that recall or a higher one, and is read at 101 places.
    """

    def __init__(self, scores, kinds, hit, true_kinds):
        self.there = [kind for kind in true_kinds.unique().tolist() if kind >= 0]
        self.ranked, self.truths = [], []
        image = torch.arange(len(scores), device=scores.device)[:, None].expand_as(scores)
        for kind in self.there:
            some = kinds == kind
            order = scores[some].argsort(descending=True, stable=True)
            self.ranked.append((image[some][order], hit.transpose(1, 2)[some][order].T.double()))
            self.truths.append((true_kinds == kind).sum(1).double())

    def __call__(self, weights):
        """(B, T): the mean over the kinds that there are, for each of weights (B, N), how often an image counts."""
        sums, kinds = 0, 0
        for (image, hit), truths in zip(self.ranked, self.truths):
            count = (weights @ truths)[:, None]
            sums = sums + read(weights[:, image], hit, count)
            kinds = kinds + (count > 0).double()
        return sums / kinds.clamp(min=1)


def read(weight, hit, count):
    """Average precision (B, T) of one kind: how often each of the n guesses counts (B, n), the likeliest first, whether it
    is right (T, n), 0 or 1, and how many true boxes there are (B, 1)."""
    right = (weight[:, None] * hit).cumsum(2)
    precision = right / weight.cumsum(1).clamp(min=TINY)[:, None]
    precision = F.pad(precision, (0, 1))  # of recalls that are not reached
    precision = precision.flip(2).cummax(2).values.flip(2)
    places = torch.linspace(0, 1, RECALLS, dtype=torch.float64, device=weight.device).expand(*right.shape[:2], -1)
    at = torch.searchsorted((right / count.clamp(min=TINY)[:, :, None]).contiguous(), (places - 1e-9).contiguous())
    return precision.gather(2, at).mean(2) * (count > 0)
