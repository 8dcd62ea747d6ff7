"""ALIGN: CLIP's objective on noisy texts, with a temperature that divides and labels that are not quite sure."""

from typing import Annotated

import torch
import torch.nn as nn

from .. import nets
from ..arguments import Depth, Range, Share, Temperature, Width
from ..core.precision import normalize
from ..inputs.views import Pair
from ..training.losses import info_nce
from .base import Method, affinity


class ALIGN(Method):
    """Jia et al. 2021, "Scaling Up Visual and Vision-Language Representation Learning With Noisy Text Supervision",
    eq. 1 and 2. https://arxiv.org/abs/2102.05918

    The sum, not CLIP's mean, of the two directions' softmax losses over the batch of all processes, each with the share
    `smoothing` of the label spread evenly over that batch. The temperature is learned itself, where CLIP learns the
    logarithm of its inverse. Started at 1 it ends near 1/64 in the paper's million steps; of runs of hundreds a smaller
    start makes more. `smallest` keeps it from 0, which nothing does in the paper. The noise is the data's: texts found
    beside images, or scenes' `wrong_captions`. dim: of the joint space. depth, heads: of the text encoder, which is
    clip's, as is the view, a crop without a flip; the paper's are EfficientNet-L2 and BERT-large.
    """

    inputs = Pair("image", "caption", augment="crop")
    sensitive = ("temperature", 0.2)  # it is learned, but a short run stays near where it starts

    def __init__(
        self,
        encoder,
        card,
        dim: Width = 640,
        depth: Depth = 2,
        heads: Depth = 4,
        temperature: Temperature = 1.0,
        smoothing: Share = 0.1,
        smallest: Annotated[float, Range(ge=1e-3, le=1)] = 0.01,
    ):
        super().__init__(encoder)
        self.image_head = nets.build("linear", d_in=encoder.dim, d_out=dim, bias=False)
        self.text = nets.build("text_transformer", vocabulary=card["vocabulary"], dim=dim, depth=depth, heads=heads)
        self.temperature = nn.Parameter(torch.tensor(float(temperature)))
        self.smoothing, self.smallest = smoothing, smallest

    def project(self, batch):
        """Unit vectors of the images and of the captions, each (N, dim)."""
        image = normalize(self.image_head(self.encoder(batch["image"])), dim=1)
        return image, normalize(self.text(batch["caption"]), dim=1)

    def objective(self, image, text):
        by_image, accuracy = info_nce(image, text, self.temperature, self.smoothing)
        by_text, _ = info_nce(text, image, self.temperature, self.smoothing)
        return {"loss": by_image + by_text, "accuracy": accuracy, "temperature": self.temperature.detach()}

    @torch.no_grad()
    def after_step(self, progress):
        self.temperature.clamp_(min=self.smallest)

    def parts(self):
        return {"encoder": self.encoder, "image_head": self.image_head, "text": self.text}

    @torch.no_grad()
    def pictures(self, batch):
        """affinity: A row is an image, a column a caption, each cell the cosine of their embeddings (black −1,
        opposite; white 1, the same). On the diagonal, which is to be the lightest, is an image with its own caption."""
        image, text = self.project({name: batch[name][:32] for name in self.inputs.columns})
        return {**super().pictures(batch), "affinity": affinity(image, text)}
