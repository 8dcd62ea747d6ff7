"""Networks by name. `build` gives any of them back from the configuration that an encoder folder records."""

from .convnet import ConvNet, ResNet18
from .heads import Decoder, TextTransformer, critic, linear, map_shapes, map_side, mlp
from .pixels import PixelTransformer
from .split import Split
from .vit import ViT

__all__ = ["build", "ConvNet", "ResNet18", "ViT", "Split", "PixelTransformer"]
__all__ += ["Decoder", "TextTransformer", "critic", "linear", "map_shapes", "map_side", "mlp"]

OURS = {
    "convnet": ConvNet,
    "vit": ViT,
    "resnet18": ResNet18,
    "split": Split,
    "pixel_transformer": PixelTransformer,
    "text_transformer": TextTransformer,
    "linear": linear,
}


def build(name, **kwargs):
    """The network `name` with `.config` recording how it was built; a name not ours is looked up in timm.

    Encoders map images (N, C, H, W), normalised floats, to features (N, encoder.dim); `encoder.features(x)` is the
    map (N, dim, h, w) before pooling and `encoder.layers(x)` the list of maps from shallow to deep.
    Raises UserError for a name that neither we nor timm know, or for arguments that the network does not take.
    """
    from ..errors import UserError, nearest

    try:
        if name in OURS:
            net = OURS[name](**kwargs)
        else:
            from .backbone import Timm

            net = Timm(name, **kwargs)
    except KeyError:
        import timm

        raise UserError(f"encoder.name: unknown network '{name}'{nearest(name, [*OURS, *timm.list_models()])}") from None
    except TypeError as error:
        raise UserError(f"encoder: {name} was given arguments it does not take ({error})") from None
    net.config = {"name": name, **kwargs}
    return net
