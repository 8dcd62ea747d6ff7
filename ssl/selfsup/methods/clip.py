"""CLIP: an image finds its caption among the batch's captions, and a caption its image."""

import math
from typing import Annotated

import torch
import torch.nn as nn

from ..arguments import Depth, Range, Temperature, Width
from .. import nets
from ..core.precision import normalize
from ..training.losses import info_nce
from ..inputs.views import Pair
from .base import Method, affinity


class CLIP(Method):
    """Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", figure 3.
    https://arxiv.org/abs/2103.00020

    The view is a crop without a flip, as in the paper: a flip would make "left of" wrong. Equal captions in a batch count
    as negatives of each other, as in the paper, where they hardly occur. dim: of the joint space. depth, heads: of the
    text encoder, small like the captions are short; it reads in both directions and its feature is the mean over the tokens,
    where the paper's is causal, takes that of the last token, and projects it linearly.
    """

    inputs = Pair("image", "caption", augment="crop")
    sensitive = ("temperature", 0.2)  # it is learned, but a short run stays near where it starts

    def __init__(
        self,
        encoder,
        card,
        dim: Width = 128,
        depth: Depth = 2,
        heads: Depth = 4,
        temperature: Temperature = 0.07,
        largest_scale: Annotated[float, Range(ge=1, le=1000)] = 100,
    ):
        super().__init__(encoder)
        self.image_head = nets.build("linear", d_in=encoder.dim, d_out=dim, bias=False)
        self.text = nets.build("text_transformer", vocabulary=card["vocabulary"], dim=dim, depth=depth, heads=heads)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        self.largest = math.log(largest_scale)

    def project(self, batch):
        """Unit vectors of the images and of the captions, each (N, dim)."""
        image = normalize(self.image_head(self.encoder(batch["image"])), dim=1)
        return image, normalize(self.text(batch["caption"]), dim=1)

    def objective(self, image, text):
        temperature = (-self.log_scale).exp()
        by_image, accuracy = info_nce(image, text, temperature)
        by_text, _ = info_nce(text, image, temperature)
        return {"loss": (by_image + by_text) / 2, "accuracy": accuracy, "temperature": temperature.detach()}

    @torch.no_grad()
    def after_step(self, progress):
        self.log_scale.clamp_(max=self.largest)  # section 2.5: logits are never scaled by more than 100

    def parts(self):
        return {"encoder": self.encoder, "image_head": self.image_head, "text": self.text}

    @torch.no_grad()
    def pictures(self, batch):
        """affinity: A row is an image, a column a caption, each cell the cosine of their embeddings (black −1,
        opposite; white 1, the same). On the diagonal, which is to be the lightest, is an image with its own caption."""
        image, text = self.project({name: batch[name][:32] for name in self.inputs.columns})
        return {**super().pictures(batch), "affinity": affinity(image, text)}
