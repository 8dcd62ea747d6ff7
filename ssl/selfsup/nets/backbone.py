"""Any timm model as an encoder."""

import torch.nn as nn


class Timm(nn.Module):
    """A timm model without its classifier; `kwargs` go to timm.create_model. Raises KeyError for an unknown name."""

    def __init__(self, name, **kwargs):
        super().__init__()
        import timm

        if not timm.is_model(name):
            raise KeyError(name)
        self.net = timm.create_model(name, num_classes=0, **kwargs)
        self.dim = self.net.num_features

    def layers(self, x):
        return list(self.net.forward_intermediates(x, output_fmt="NCHW", intermediates_only=True))

    def features(self, x):
        return self.layers(x)[-1]

    def forward(self, x):
        return self.net(x)
