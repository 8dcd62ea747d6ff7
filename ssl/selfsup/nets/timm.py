"""Any timm model as an encoder."""

from ..arguments import Count, Text
from ..errors import UserError
from ..layers import ImageEncoder


class Timm(ImageEncoder):
    """A timm model up to its last feature map; `kwargs` go to timm.create_model. Raises KeyError for an unknown name.

    Features are the mean of that map, as for our own encoders. Everything after it goes (classifier, pooling, the wide
    layers some put between), so that every parameter takes part, whether a method uses the map or its mean.
    """

    def __init__(self, name: Text, channels: Count = 3, **kwargs):
        super().__init__()
        import timm

        if not timm.is_model(name):
            raise KeyError(name)
        self.channels = kwargs.setdefault("in_chans", channels)
        self.net = timm.create_model(name, num_classes=0, **kwargs)
        if not hasattr(self.net, "prune_intermediate_layers"):
            raise UserError(f"encoder.name: timm's {name} does not give feature maps; choose another model")
        # Transformers normalise the last map (`norm`); elsewhere timm's "norm" layers belong to the head.
        self.normalised = hasattr(self.net, "norm")
        self.net.prune_intermediate_layers(1, prune_norm=not self.normalised, prune_head=True)
        self.dim = self.net.feature_info[-1]["num_chs"]

    def layers(self, x):
        return list(
            self.net.forward_intermediates(x, norm=self.normalised, output_fmt="NCHW", intermediates_only=True)
        )
