"""Common fate: pixels' embeddings are alike where their motion is."""

from typing import Annotated

import torch
import torch.nn.functional as F

from .. import nets
from ..arguments import Range, Scale, Width
from ..core import rng
from ..core.cluster import kmeans
from ..core.maps import at_side
from ..core.moving import own
from ..core.precision import float32, normalize
from ..inputs.frames import Frames
from ..layers import map_shapes
from ..training.losses import mean_where
from .base import Method, denormalise, rows

PIXELS = 1  # salt
MOVES = 0.5  # pixels: a frame in which nothing moves farther says nothing


class CommonFate(Method):
    """Mahendran, Thewlis & Vedaldi 2018, "Cross Pixel Optical Flow Similarity for Self-Supervised Learning", section 3.
    https://arxiv.org/abs/1807.05636

    Of a frame some pixels are drawn, and two similarities of each two of them are brought together: that of their
    embeddings, K_θ = scale · cos(φ_p, φ_q), and that of their flow, K_u = exp(−‖u_p − u_q‖² / 2σ²). Each becomes a
    distribution over the other pixels by a softmax, without the pixel itself, and the loss is the cross-entropy of
    the second with the first, a mean over pixels and frames. A frame whose flow is nowhere half a pixel away from its
    median is left out. Embeddings are of the first frame alone, by the maps of all layers (hypercolumns).

    The flow is estimated (`data/flow.py`), by DIS where the paper takes EpicFlow; the camera's part of it is taken away, and
    it is the mean over the film (`core.moving.own`), since small frames have noisy flow. side: of the grid of pixels at
    which flow and maps are taken. scale: ¼ in the paper, which leaves the first distribution nearly flat, as K_u
    leaves the second. sigma: in pixels. `divergence` is the loss less what it is at least, the second one's
    entropy, and `divergence_flat` that of embeddings which tell nothing.
    """

    inputs = Frames("none", columns=("frames", "flow"))
    sensitive = ("scale", 4.0)

    def __init__(
        self,
        encoder,
        card,
        pixels: Annotated[int, Range(ge=2, le=2**16)] = 512,
        dim: Width = 16,
        scale: Scale = 0.25,
        sigma: Scale = 0.5,
        side: Annotated[int, Range(ge=2, le=256)] = 16,
    ):
        super().__init__(encoder)
        channels = [c for c, _ in map_shapes(encoder, card["size"])]
        self.head = nets.build("hypercolumns", channels=channels, dim=dim, side=side)
        self.pixels, self.scale, self.sigma = min(pixels, side**2), scale, sigma

    def embed(self, image):
        """Embeddings (N, dim, side, side) of images, of unit length."""
        return normalize(self.head(self.encoder.layers(image)), dim=1)

    def forward(self, batch):
        embedding = self.embed(batch["frames"][:, 0]).flatten(2)
        flow = at_side(own(batch["flow"]), self.head.side).flatten(2)
        chosen = rng.uniform(batch["key"], flow.shape[2], salt=PIXELS).argsort(1)[:, None, : self.pixels]
        embedding, flow = (x.gather(2, chosen.expand(-1, x.shape[1], -1)) for x in (embedding, flow))
        return self.compared(embedding, flow)

    @float32
    def compared(self, embedding, flow):
        """embedding (N, dim, P), unit vectors; flow (N, 2, P), in pixels."""
        alike = self.scale * embedding.transpose(1, 2) @ embedding  # (N, P, P)
        apart = (flow[:, :, :, None] - flow[:, :, None]).square().sum(1)
        together = (-apart / (2 * self.sigma**2)).exp()
        own = torch.eye(flow.shape[2], dtype=torch.bool, device=flow.device)
        told = alike.masked_fill(own, -torch.inf).log_softmax(1).masked_fill(own, 0)
        truth = together.masked_fill(own, -torch.inf).softmax(1)
        loss = -(truth * told).sum(1).mean(1)
        entropy = torch.special.entr(truth).sum(1).mean(1)
        moves = (flow - flow.median(2, keepdim=True).values).square().sum(1).amax(1) >= MOVES**2
        flat = torch.full_like(loss, flow.shape[2] - 1).log() - entropy
        least, flat = (mean_where(x.detach(), moves) for x in (loss - entropy, flat))
        return {"loss": mean_where(loss, moves), "divergence": least, "divergence_flat": flat}

    def parts(self):
        return {"encoder": self.encoder, "pixels": self.head}

    @torch.no_grad()
    def pictures(self, batch):
        """image_clusters: A column is a frame of a film: above itself, below its pixels in two clusters by their
        embeddings. Which of the two is black and which white means nothing; where they part is what the network
        takes for the edge of what moves alike."""
        image = batch["frames"][:8, 0]
        embedding = self.embed(image).float()
        clusters = torch.stack([kmeans(x.flatten(1).T, 2)[0].view(x.shape[1:]) for x in embedding])
        clusters = F.interpolate(clusters[:, None].float(), image.shape[2:]).expand(-1, 3, -1, -1)
        return {"image_clusters": rows(torch.stack([denormalise(image)[:, :3], clusters], 1))}
