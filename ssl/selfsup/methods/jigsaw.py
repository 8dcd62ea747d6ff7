"""Jigsaw: in which of K orders were the nine tiles of the image shuffled."""

import functools
import itertools
from typing import Annotated

import torch
import torch.nn.functional as F

from ..arguments import Pixels, Proportion, Range, Width
from ..core import rng
from ..core.precision import cross_entropy
from ..errors import UserError
from ..layers import map_shapes, mlp
from ..training.patches import cut, jittered_grid
from ..inputs.operations import LUMA
from ..inputs.views import View
from .base import Method, denormalise, rows


class Jigsaw(Method):
    """Noroozi & Favaro 2016, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", section 3 and
    Algorithm 1. https://arxiv.org/abs/1603.09246

    The encoder sees each tile by itself, the context-free network; a head on the nine features, concatenated in the order
    shown, names the permutation. Against shortcuts a tile lies anywhere in its cell, so that edges do not continue, and
    its mean and deviation are taken away, which neighbours share; `grey` of the images are without colour, against
    chromatic aberration. Each image is shuffled in one way at a time, and anew each epoch.

    permutations: K; 1,000 in the paper. tile: side in pixels; 64 in cells of 75 in the paper, here 8 in cells of 10.
    """

    inputs = View("crop")
    means = True
    sensitive = ("permutations", 100)  # the paper varies the size of the set

    def __init__(
        self,
        encoder,
        card,
        permutations: Annotated[int, Range(ge=2, le=5040)] = 1000,
        tile: Annotated[Pixels, Range(ge=2)] = 8,
        grey: Proportion = 0.3,
        hidden: Width = 512,
    ):
        super().__init__(encoder)
        if tile > card["size"] // 3:
            raise UserError(f"jigsaw: no 3 × 3 tiles of {tile} pixels in images of {card['size']}")
        map_shapes(encoder, tile)  # raises where it cannot take them
        self.tile, self.grey = tile, grey
        self.head = mlp(9 * encoder.dim, hidden, permutations)
        self.register_buffer("permutations", permutation_set(permutations).clone(), persistent=False)
        luma = torch.tensor(LUMA) * torch.tensor(card["std"])  # of colours divided by the data's deviation
        self.register_buffer("luma", luma.view(3, 1, 1), persistent=False)

    def tiles(self, batch):
        """(N, 9, C, tile, tile), row by row."""
        x, key = batch["image"], batch["key"]
        grey = rng.uniform(key, 1, 1, 1, salt=1) < self.grey
        x = torch.where(grey, (x * self.luma).sum(1, keepdim=True), x)
        x = cut(x, jittered_grid(key, x.shape[-1], 3, self.tile), self.tile)
        variance, mean = torch.var_mean(x, (3, 4), keepdim=True)
        return (x - mean) / (variance + 1e-6).sqrt()

    def shuffled(self, batch):
        """Tiles in the order shown, and the number of their permutation: place i shows the tile permutation[i]."""
        tiles = self.tiles(batch)
        which = rng.randint(batch["key"], len(self.permutations), salt=2)
        order = self.permutations[which]
        return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], order], which

    def forward(self, batch):
        tiles, which = self.shuffled(batch)
        features = self.encoder(tiles.flatten(0, 1)).unflatten(0, (-1, 9))
        logits = self.head(features.flatten(1))
        return {"loss": cross_entropy(logits, which), "accuracy": (logits.argmax(1) == which).float().mean()}

    @torch.no_grad()
    def pictures(self, batch):
        """puzzles: A column is an image of val: above its nine tiles as the network is shown them, which is to say in
        which order they are, below the tiles in their places."""
        batch = {name: batch[name][:8] for name in ("image", "key")}
        sheets = torch.stack([self.shuffled(batch)[0], self.tiles(batch)], 1)  # (N, 2, 9, C, t, t)
        sheets = F.pad(sheets, (0, 1, 0, 1)).unflatten(2, (3, 3)).permute(0, 1, 4, 2, 5, 3, 6)
        return {**super().pictures(batch), "puzzles": rows(denormalise(sheets.flatten(5).flatten(3, 4)))}


@functools.cache
def permutation_set(count, tiles=9):
    """Algorithm 1: the first permutation is drawn, each next is the one farthest, in Hamming distance, on average from
    those chosen: int64 (count, tiles). Of thousands as far, one is drawn that is no single swap from any chosen, if there
    is one: such twins can hardly be told apart. Always the same; fewer are the beginning of more."""
    every = torch.tensor(list(itertools.permutations(range(tiles))), dtype=torch.uint8).T
    every = every[:, rng.permutation(every.shape[1], 0)].contiguous()
    chosen = [int(rng.randint(rng.key(0), every.shape[1], 1))]
    distance = torch.zeros(every.shape[1], dtype=torch.int32)  # to all chosen ones together
    twin = torch.zeros(every.shape[1], dtype=torch.bool)
    while len(chosen) < count:
        distance[chosen[-1]] = torch.iinfo(torch.int32).min // 4  # taken out of the pool
        apart = sum((place != tile).byte() for place, tile in zip(every, every[:, chosen[-1]]))
        distance += apart
        twin |= apart == 2
        chosen.append(int((2 * distance - twin.int()).argmax()))
    return every[:, chosen].T.long()
