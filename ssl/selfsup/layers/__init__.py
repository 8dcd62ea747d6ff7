"""What encoders and methods are built of; a network that is an encoder is in `nets`."""

from .blocks import Block, Conv2d, Preactivated, norm_layer, sincos
from .encoder import ImageEncoder
from .heads import Decoder, Fusion, Initial, critic, linear, map_shapes, map_side, mlp, standardised
from .pixels import Hypercolumns, Mask
from .sound import LogMel, SoundNet
from .text import TextTransformer, Tied, as_map, pooled, reversed_texts

__all__ = [
    "Block", "Conv2d", "Preactivated", "norm_layer", "sincos", "ImageEncoder", "Decoder", "Fusion", "Initial", "critic",
    "linear", "map_shapes", "map_side", "mlp", "standardised", "Hypercolumns", "Mask", "LogMel", "SoundNet",
    "TextTransformer", "Tied", "as_map", "pooled", "reversed_texts",
]  # fmt: skip
