"""Every method that lightly has a CIFAR-10 recipe for, ours against its own: kNN accuracy after the same images seen, and
images a second.

Both sides take the same encoder, views, widths of heads, temperatures, optimiser and batch (256); lightly's is built of its
heads, losses and transforms as in its examples, and fed by 2 workers. Where our loss is a multiple of theirs, our learning
rate is divided and our weight decay multiplied by it, which makes the steps of SGD equal.
Lightly is needed for this benchmark only: pip install lightly==1.6.0
"""

import copy
import json
import statistics
import tempfile
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from bench import common
from selfsup import errors, nets

IMAGES, SEEDS, WIDTH, STUDENT = 25600, (0, 1, 2), 16, 4.303  # t of 2 degrees of freedom
# Heads are narrower than in the recipes (512 numbers where they have 512 to 2,048), since the encoder is.
ARGS = {
    "barlow_twins": {"hidden": 512, "dim": 512},
    "byol": {"hidden": 512, "dim": 128, "momentum": 0.95},
    "dino": {"hidden": 512, "bottleneck": 64, "prototypes": 512, "small": 0, "momentum": 0.99, "teacher_temperature": 0.02},
    "moco": {"hidden": 512, "queue": 4096, "momentum": 0.99, "temperature": 0.1},
    "simclr": {"hidden": 512},
    "simsiam": {"hidden": 512, "dim": 512, "bottleneck": 128},
    "swav": {"hidden": 512, "prototypes": 512, "small": 0, "queue": 1, "queue_from": 1.0},
}
MULTIPLE = {"barlow_twins": 1 / 512, "byol": 4}  # our loss over theirs: eq. 2 over `dim`; 2 - 2 cos of both views, not -cos/2


class Lightly(common.Theirs):
    """The encoder, a head, made by the function `head`, and slow copies of both where a method has them."""

    def __init__(self, encoder, head, slow=False):
        super().__init__()
        self.encoder, self.head, self.slow = encoder, head(), None
        if slow:
            other = head()  # no deepcopy: DINO's has a weight norm, which does not take it
            other.load_state_dict(self.head.state_dict())
            self.slow = nn.Sequential(copy.deepcopy(encoder), other).requires_grad_(False)

    def project(self, x):
        return self.head(self.encoder(x))

    def update(self, momentum):
        from lightly.models.utils import update_momentum

        update_momentum(nn.Sequential(self.encoder, self.head), self.slow, momentum)

    def rising(self, start, progress):
        from lightly.utils.scheduler import cosine_schedule

        self.update(cosine_schedule(round(1000 * progress), 1000, start, 1.0))


class BarlowTwins(Lightly):
    def __init__(self, encoder, args):
        from lightly.loss import BarlowTwinsLoss
        from lightly.models.modules import BarlowTwinsProjectionHead

        super().__init__(encoder, lambda: BarlowTwinsProjectionHead(encoder.dim, args["hidden"], args["dim"]))
        self.criterion = BarlowTwinsLoss()

    def forward(self, views, progress):
        return self.criterion(*map(self.project, views))


class BYOL(Lightly):
    def __init__(self, encoder, args):
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

        super().__init__(encoder, lambda: BYOLProjectionHead(encoder.dim, args["hidden"], args["dim"]), slow=True)
        self.predict = BYOLPredictionHead(args["dim"], args["hidden"], args["dim"])
        self.criterion, self.momentum = NegativeCosineSimilarity(), args["momentum"]

    def forward(self, views, progress):
        self.rising(self.momentum, progress)
        p = [self.predict(self.project(x)) for x in views]
        with torch.no_grad():
            z = [self.slow(x) for x in views]
        return 0.5 * (self.criterion(p[0], z[1]) + self.criterion(p[1], z[0]))


class DINO(Lightly):
    def __init__(self, encoder, args):
        from lightly.loss import DINOLoss
        from lightly.models.modules import DINOProjectionHead

        widths = args["hidden"], args["bottleneck"], args["prototypes"]
        super().__init__(encoder, lambda: DINOProjectionHead(encoder.dim, *widths), slow=True)
        temperature = args["teacher_temperature"]
        self.criterion = DINOLoss(args["prototypes"], warmup_teacher_temp=temperature, teacher_temp=temperature)
        self.momentum = args["momentum"]

    def forward(self, views, progress):
        self.rising(self.momentum, progress)
        with torch.no_grad():
            teacher = [self.slow(x) for x in views]
        return self.criterion(teacher, [self.project(x) for x in views])


class MoCo(Lightly):
    def __init__(self, encoder, args):
        from lightly.loss import NTXentLoss
        from lightly.models.modules import MoCoProjectionHead

        super().__init__(encoder, lambda: MoCoProjectionHead(encoder.dim, args["hidden"], 128), slow=True)
        self.criterion = NTXentLoss(temperature=args["temperature"], memory_bank_size=(args["queue"], 128))
        self.momentum = args["momentum"]

    def forward(self, views, progress):
        from lightly.models.utils import batch_shuffle, batch_unshuffle

        self.update(self.momentum)
        query = self.project(views[0])
        with torch.no_grad():
            x, order = batch_shuffle(views[1])
            key = batch_unshuffle(self.slow(x), order)
        return self.criterion(query, key)


class SimCLR(Lightly):
    def __init__(self, encoder, args):
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__(encoder, lambda: SimCLRProjectionHead(encoder.dim, args["hidden"], 128))
        self.criterion = NTXentLoss(temperature=0.5)

    def forward(self, views, progress):
        return self.criterion(*map(self.project, views))


class SimSiam(Lightly):
    def __init__(self, encoder, args):
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead

        super().__init__(encoder, lambda: SimSiamProjectionHead(encoder.dim, args["hidden"], args["dim"]))
        self.predict = SimSiamPredictionHead(args["dim"], args["bottleneck"], args["dim"])
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views, progress):
        z = [self.project(x) for x in views]
        p = [self.predict(one) for one in z]
        return 0.5 * (self.criterion(p[0], z[1].detach()) + self.criterion(p[1], z[0].detach()))


class SwAV(Lightly):
    def __init__(self, encoder, args):
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

        super().__init__(encoder, lambda: SwaVProjectionHead(encoder.dim, args["hidden"], 128))
        self.prototypes, self.criterion = SwaVPrototypes(128, args["prototypes"]), SwaVLoss()

    def forward(self, views, progress):
        self.prototypes.normalize()
        return self.criterion([self.prototypes(F.normalize(self.project(x), dim=1)) for x in views], [])


def lightly():
    """For each method its side of lightly's, and the transform that makes the same views as ours."""
    from lightly import transforms as t

    asym = t.BYOLTransform(
        t.BYOLView1Transform(input_size=32, gaussian_blur=0.0), t.BYOLView2Transform(input_size=32, gaussian_blur=0.0)
    )
    return {
        "barlow_twins": (BarlowTwins, asym),
        "byol": (BYOL, asym),
        "dino": (DINO, t.DINOTransform(global_crop_size=32, n_local_views=0, gaussian_blur=(0, 0, 0))),
        "moco": (MoCo, t.MoCoV2Transform(input_size=32)),
        "simclr": (SimCLR, t.SimCLRTransform(input_size=32, gaussian_blur=0.0)),
        "simsiam": (SimSiam, t.SimSiamTransform(input_size=32, gaussian_blur=0.0)),
        "swav": (SwAV, t.SwaVTransform(crop_sizes=[32], crop_counts=[2], crop_min_scales=[0.14], crop_max_scales=[1.0], gaussian_blur=0.0)),
    }  # fmt: skip


@errors.main
def main():
    common.need_lightly()
    shards, split = common.opened()
    result = {"bench": "recipes", "data": shards.name, "images": IMAGES, "width": WIDTH}
    torch.manual_seed(0)
    floor = nets.build("convnet", width=WIDTH)
    floor.mean, floor.std = split.card["mean"], split.card["std"]
    result["random"] = round(common.knn(floor.eval(), shards), 2)
    print(f"On {shards.name}, batch {common.BATCH}, {IMAGES} images; kNN at random {result['random']}")
    print(f"{'method':<14}{'kNN ours':>22}{'kNN lightly':>22}{'difference':>16}{'images/s':>10}{'lightly':>9}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as scratch:
        for name, (kind, transform) in lightly().items():
            args, multiple = ARGS[name], MULTIPLE.get(name, 1)
            same = common.run(name, WIDTH, IMAGES, shards.name, args)
            lr, decay = same.train.lr / multiple, same.train.weight_decay * multiple
            run = common.run(name, WIDTH, IMAGES, shards.name, args, lr=lr, weight_decay=decay)
            found = {"ours": [], "lightly": []}
            for seed in SEEDS:
                found["ours"].append(common.ours(run, shards, Path(scratch, f"{name}-{seed}"), seed))
                torch.manual_seed(seed)
                theirs = kind(nets.build("convnet", width=WIDTH), args)
                found["lightly"].append(common.theirs(theirs, transform, same, split))
            accuracy = {side: [round(common.knn(encoder, shards), 2) for _, encoder in v] for side, v in found.items()}
            rate = {side: statistics.median(r for r, _ in v) for side, v in found.items()}
            gaps = [a - b for a, b in zip(*accuracy.values())]
            gap, within = statistics.mean(gaps), STUDENT * statistics.stdev(gaps) / len(gaps) ** 0.5
            ratio = statistics.median(a / b for (a, _), (b, _) in zip(*found.values()))
            result[name] = {"knn": accuracy, "difference": round(gap, 2), "interval": round(within, 2)}
            result[name] |= {"rate": {k: round(v) for k, v in rate.items()}, "ratio": round(ratio, 2)}
            ours, others = (" ".join(f"{x:.1f}" for x in v) for v in accuracy.values())
            print(f"{name:<14}{ours:>22}{others:>22}{f'{gap:+.1f} ± {within:.1f}':>16}{rate['ours']:>10.0f}"
                  f"{rate['lightly']:>9.0f}{ratio:>7.2f}", flush=True)  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
