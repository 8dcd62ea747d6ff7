"""What encoders and methods are built of; a network that is an encoder is in `nets`."""

from .blocks import Block, Conv2d, norm_layer, sincos
from .encoder import ImageEncoder
from .heads import Decoder, critic, linear, map_shapes, map_side, mlp
from .sound import LogMel
from .text import TextTransformer, Tied, as_map, pooled, reversed_texts

__all__ = [
    "Block", "Conv2d", "norm_layer", "sincos", "ImageEncoder", "Decoder", "critic", "linear", "map_shapes", "map_side", "mlp",
    "LogMel", "TextTransformer", "Tied", "as_map", "pooled", "reversed_texts",
]  # fmt: skip
