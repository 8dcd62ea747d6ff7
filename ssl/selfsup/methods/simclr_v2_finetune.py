"""SimCLR v2, the second of three runs: fine-tuning on few labels, from a layer of the projector on."""

from typing import Annotated

from .. import nets
from ..arguments import Range
from ..core.precision import cross_entropy
from ..data.order import Shuffled
from ..errors import UserError
from ..inputs.views import View
from .base import Method


class SimCLRv2Finetune(Method):
    """Chen et al. 2020, section 2: the network is cut within its projector, not at its end, and all of what is left is
    trained on the labels. https://arxiv.org/abs/2006.10029

    `from` names the run of `simclr_v2` whose encoder and projector this one starts with. cut: layers of the projector
    that are kept, each with its BatchNorm and ReLU, under a new linear layer; 1 in the paper where labels are
    few, 0 where all are there. They are the first part of `classifier`, so that it takes the encoder's features.
    """

    inputs = View(augment="crop_flip", columns=("image", "label"))
    order = Shuffled(labelled=True)
    means = True
    sensitive = ("cut", 0)  # the paper's where all labels are there

    def __init__(self, encoder, card, teacher, cut: Annotated[int, Range(ge=0, le=15)] = 1):
        super().__init__(encoder)
        given, projector = teacher.net.config, teacher.part("projector")
        if given != encoder.config:
            raise UserError(f"`from` names a run with another encoder, {given}: fine-tuning goes on with it, so "
                            "`encoder` should be the same")
        if cut >= projector.config["layers"]:
            raise UserError(f"args.cut: the projector has {projector.config['layers']} layers, and fewer are kept: not {cut}")
        encoder.load_state_dict(teacher.net.state_dict())
        widths = {"d_in": encoder.dim, "hidden": projector.config["hidden"], "d_out": len(card["classes"])}
        self.classifier = nets.build("mlp", **widths, layers=1 + cut)
        for own, theirs in zip(self.classifier[:-1], projector):
            own.load_state_dict(theirs.state_dict())

    def forward(self, batch):
        logits = self.classifier(self.encoder(batch["image"]))
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"loss": cross_entropy(logits, batch["label"]), "accuracy": accuracy}

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}
