"""L³: do this picture and this sound belong together?"""

from typing import Annotated

import torch

from .. import nets
from ..arguments import Range, Width
from ..core import rng
from ..core.distributed import gather, gather_rows, rank
from ..core.precision import cross_entropy
from ..inputs.sound import ImageSound
from .base import Method, denormalise, rows

PAIRS = 30  # salt: the use of the random numbers here


class AudioVisual(Method):
    """Arandjelović & Zisserman 2017, "Look, Listen and Learn", section 2. https://arxiv.org/abs/1705.08168

    Half of a batch's images keep their sound, and the others get one another's: cross-entropy of two classes on both
    networks' features, put together by two linear layers. The paper draws the wrong sound from another video and cuts
    the right one from around the frame; here a sample has one sound, all of which is heard. A wrong sound may be of the
    image's class by chance, of C balanced classes 1 in C: who hears the class alone is right in 1 − 1/(2C) of pairs.

    hidden: of the layers that put them together. mels, width: of the network for sound, see the encoder
    `sound_convnet`. Features are means over their maps, as all encoders' here, where the paper takes the largest value.
    """

    inputs = ImageSound("crop_flip")
    sensitive = ("augment", "crop")  # a sound tells size and place, which crops change

    def __init__(
        self,
        encoder,
        card,
        hidden: Width = 128,
        mels: Annotated[int, Range(ge=8, le=512)] = 64,
        width: Width = 16,
    ):
        super().__init__(encoder)
        self.sound = nets.build("sound_net", card, mels=mels, width=width)
        self.fusion = nets.build("fusion", image=encoder.dim, sound=self.sound.dim, hidden=hidden)

    def forward(self, batch):
        image, sound = self.encoder(batch["image"]), gather(self.sound(batch["sound"]))
        mine = torch.arange(len(image), device=image.device) + rank() * len(image)
        whose = partners(gather_rows(batch["key"]))[mine]
        logits, label = self.fusion(image, sound[whose]), (whose == mine).long()
        accuracy = (logits.argmax(1) == label).float().mean()
        return {"loss": cross_entropy(logits, label), "accuracy": accuracy}

    def parts(self):
        return {"encoder": self.encoder, "sound": self.sound, "fusion": self.fusion}

    @torch.no_grad()
    def pictures(self, batch):
        """spectrograms: A sound each, from left to right: time runs to the right, pitch upwards; white is loud, black
        silent.
        together: A row is an image, a column a sound, each cell how likely the network thinks it that they belong
        together (black for 0, white for 1). They do on the diagonal."""
        image, sound = batch["image"][:16], batch["sound"][:16]
        likely = self.fusion(self.encoder(image)[:, None], self.sound(sound)).float().softmax(2)[:, :, 1]
        spectrograms = rows(denormalise(self.sound.spectrogram(sound[:8]).flip(2)))[0]
        together = likely.repeat_interleave(8, 0).repeat_interleave(8, 1)
        return {**super().pictures(batch), "spectrograms": spectrograms, "together": together}


def partners(key):
    """Whose sound each of the images with keys (N,) gets: int64 (N,). A random half keep their own; the others, two at
    least, pass theirs on in a circle, so that none of these has its own."""
    n = len(key)
    others = rng.uniform(key, salt=PAIRS).argsort(stable=True)[: max(2, n - n // 2)]
    return torch.arange(n, device=key.device).scatter(0, others, others.roll(1))
