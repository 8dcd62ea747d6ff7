"""Any timm model as an encoder."""

import functools

import torch

from ..arguments import Channels, Pixels, Text
from ..errors import UserError, nearest
from ..layers import ImageEncoder

# What timm.create_model takes besides what a model is built of: where weights come from, which are the encoder folder's
# own, and what would give something else than feature maps.
NOT_OURS = ("cache_dir", "checkpoint_path", "exportable", "feature_cfg", "features_only", "kwargs_filter", "no_jit",
            "num_classes", "out_indices", "patch_drop_rate", "scriptable")
# timm's files of transformers whose blocks all have the same tokens, a class token or others before the patches'.
TRANSFORMERS = ("deit", "eva", "vision_transformer")


def maker(name, others=()):
    """What makes the model `name`: a Timm, which takes `img_size` where the model is made for one size. Raises
    UserError for a name that timm does not know; others: further names, for the nearest right one."""
    import timm

    if not timm.is_model(name):
        raise UserError(f"encoder.name: unknown network '{name}'{nearest(name, [*others, *timm.list_models()])}")
    return functools.partial(Timm, name, img_size=made_for(name))


def made_for(name):
    """The one size of images, in pixels, that a model is made for; None where it takes any."""
    import timm

    about = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return about.input_size[-1] if about and about.fixed_input_size else None


def transformer(name):
    """Whether timm's `name` is one of TRANSFORMERS, which takes images of any size where it is told to."""
    import timm

    return timm.models.model_entrypoint(name).__module__.rpartition(".")[2] in TRANSFORMERS


class Timm(ImageEncoder):
    """A timm model up to its last feature map; `kwargs` go to timm.create_model: numbers, words, truth values and lists
    of these. img_size: of images in pixels, for a model that is made for one size; None for any.

    A transformer that cuts images into patches (`vit_…`, `deit…`, `eva…`) has what our `vit` has, `patch`, `grid`,
    `tokens` and `attention`, and stretches its positions over images of another size, as small crops.

    Features are the mean of that map, as for our own encoders. Everything after it goes (classifier, pooling, the wide
    layers some put between), so that every parameter takes part, whether a method uses the map or its mean.
    Nothing is fetched and no file read, unless `pretrained`. Raises UserError for what timm cannot build.
    """

    patch = None  # pixels a side of its patches, of a transformer

    def __init__(
        self,
        name: Text,
        channels: Channels = 3,
        img_size: Pixels | None = None,
        pretrained: bool = False,
        **kwargs,
    ):
        super().__init__()
        import timm

        for key, value in kwargs.items():
            if key in NOT_OURS or key.startswith("pretrained") or not plain(value):
                raise UserError(f"encoder.{key}: {value!r} is nothing that an architecture is built of; where weights "
                                "start is the run's own, as in `init: timm`")
            if key.endswith("_rate") and not (type(value) in (int, float) and 0 <= value < 1):  # timm's are of dropping
                raise UserError(f"encoder.{key} should be a number from 0 to below 1, not {value!r}")
        self.name, self.channels = name, kwargs.setdefault("in_chans", channels)
        size = {} if img_size in (None, made_for(name)) else {"img_size": img_size}
        any_size = {"dynamic_img_size": True} if transformer(name) else {}
        try:
            self.net = timm.create_model(name, pretrained=pretrained, num_classes=0, **{**any_size, **size, **kwargs})
        except Exception as error:  # whatever an architecture raises for arguments that do not suit it
            if pretrained:
                raise
            asked = ", ".join(f"{key}: {value!r}" for key, value in {**size, **kwargs}.items())
            raise UserError(f"encoder.name: timm cannot build {name} with {asked} ({told(error)}); choose another model "
                            "or `size` of the data set") from None
        if not hasattr(self.net, "prune_intermediate_layers"):
            raise UserError(f"encoder.name: timm's {name} does not give feature maps; choose another model")
        # Transformers normalise the last map (`norm`); elsewhere timm's "norm" layers belong to the head.
        self.normalised = hasattr(self.net, "norm")
        self.net.prune_intermediate_layers(1, prune_norm=not self.normalised, prune_head=True)
        self.dim = self.net.feature_info[-1]["num_chs"]
        embed = getattr(self.net, "patch_embed", None)
        if transformer(name) and isinstance(embed, timm.layers.PatchEmbed):
            self.patch, self.grid = embed.patch_size[0], embed.grid_size[0]
            # Where timm leaves patches out at random (PatchDropout), and of positions within the blocks theirs, too.
            self.net.patch_drop = Kept(self.net.num_prefix_tokens, indices=hasattr(self.net, "rope"))

    @torch.no_grad()
    def can_encode(self, size):
        """Raise UserError if images of `size` pixels a side are too small for it, or not of its size."""
        training = self.training
        try:
            last = self.eval().features(torch.zeros(1, self.channels, size, size))
        except Exception as error:  # whatever an architecture raises for images that do not suit it
            raise UserError(f"encoder.name: timm's {self.name} cannot encode images of {size} pixels ({told(error)}); "
                            "choose another model or `size` of the data set") from None
        if last.shape[:2] != (1, self.dim) or 0 in last.shape:
            raise UserError(f"encoder.name: timm's {self.name} gives no feature maps of images of {size} pixels; choose "
                            "another model or `size` of the data set")
        self.train(training)

    def layers(self, x):
        return list(
            self.net.forward_intermediates(x, norm=self.normalised, output_fmt="NCHW", intermediates_only=True)
        )


    @property
    def embed(self):
        """What makes tokens of patches, of a transformer."""
        return self.net.patch_embed.proj

    def tokens(self, x, keep=None):
        """Encoded patch tokens (N, T, dim), as `features` has them in their places. keep: (N, T) indices of the patches
        to encode, all of them if None; a class token is encoded with them."""
        self.net.patch_drop.keep = keep
        try:
            maps = self.net.forward_intermediates(x, norm=self.normalised, output_fmt="NLC", intermediates_only=True)
            return maps[-1]
        finally:
            self.net.patch_drop.keep = None

    def attention(self, x):
        """Of the last block, (N, heads, T, T): what each patch attends to, but for what it attends to a class token."""
        last = next(part for part in self.net.blocks[-1].modules() if hasattr(part, "fused_attn"))
        found, fused = [], last.fused_attn
        hook = last.attn_drop.register_forward_hook(lambda module, given, out: found.append(given[0]))
        last.fused_attn = False  # the fused kernel keeps no attention
        try:
            self.layers(x)
        finally:
            hook.remove()
            last.fused_attn = fused
        before = self.net.num_prefix_tokens
        return found[0][:, :, before:, before:]


class Kept(torch.nn.Module):
    """Of tokens (N, prefix + patches, dim) those before the patches and those of the patches `keep` (N, T), all if
    None; with `indices` these, too, as timm's PatchDropoutWithIndices."""

    keep = None

    def __init__(self, prefix: int, indices: bool):
        super().__init__()
        self.prefix, self.indices = prefix, indices

    def forward(self, x):
        if self.keep is not None:
            patches = x[:, self.prefix:].gather(1, self.keep[:, :, None].expand(-1, -1, x.shape[2]))
            x = torch.cat([x[:, : self.prefix], patches], 1)
        return (x, self.keep) if self.indices else x


def plain(value):
    """Whether a value is a number, a word (no path, no address), a truth value or a list of these."""
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    if isinstance(value, str):
        return not set(value) & set("/\\:")
    return value is None or isinstance(value, bool | int | float)


def told(error):
    """The first line of an error, with its kind if that alone says something."""
    return str(error).partition("\n")[0] or type(error).__name__
