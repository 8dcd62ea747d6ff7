"""Pictures of the data and of what an encoder makes of it: PNGs within the page."""

import base64
import io

import numpy as np
import torch

from selfsup.config import catalogue
from selfsup.core import cluster
from selfsup.data.files import content
from selfsup.data.images import Unreadable, load
from selfsup.errors import UserError
from selfsup.report.figures import GOOD, PALETTE, pyplot

POINTS = 400                                             # val samples in the 2-D embedding
QUERIES, NEIGHBOURS = 5, 5
CLUSTERS = 10                                            # that colour the embedding where there are no labels


def png(pixels):
    """uint8 (H, W, 3) or (H, W) as a data URI."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return uri(file.getvalue())


def uri(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def pictures(row):
    """What the method drew: [(title, data URI, width in pixels of the screen, what it shows)]."""
    found, told = [], catalogue.explained(row.run.method)
    for path in sorted((row.first / "pictures").glob("*.png")) if row.first else []:
        try:
            data = content(path)
            width = load(data).width
        except Unreadable as error:
            raise UserError(f"{path} is damaged ({error}); get it back with `dvc checkout`") from None
        width *= max(1, min(3, round(560 / width)))
        found.append((path.stem.replace("_", " "), uri(data), width, told.get(path.stem, "")))
    return found


def rgb(images):
    """What can be shown of images (n, C, H, W): uint8 (n, 3, H, W) of grey ones, and of the first three of many bands."""
    if images.shape[1] != 3:
        images = images[:, :3] if images.shape[1] > 3 else images[:, :1].expand(-1, 3, -1, -1)
    if images.dtype != torch.uint8:
        images = images.double()
        images = ((images - images.min()) / (images.max() - images.min()).clamp(min=1e-12) * 255).to(torch.uint8)
    return images


def sheet(images, columns, marks=None):
    """Contact sheet (data URI, width) of images uint8 (n, C, H, W), framed green where `marks` (n,) holds."""
    n, _, h, w = images.shape
    frame = 1
    tiles = np.full((n, h + 2 * frame, w + 2 * frame, 3), 255, np.uint8)
    if marks is not None:
        tiles[np.asarray(marks)] = [int(GOOD[i:i + 2], 16) for i in (1, 3, 5)]
    tiles[:, frame:-frame, frame:-frame] = rgb(images).permute(0, 2, 3, 1).numpy()
    tiles = np.pad(tiles, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = n // columns
    pixels = tiles.reshape(rows, columns, *tiles.shape[1:]).transpose(0, 2, 1, 3, 4)
    pixels = pixels.reshape(rows * tiles.shape[1], columns * tiles.shape[2], 3)
    return png(pixels), pixels.shape[1] * max(1, 72 // w)


def galleries(samples):
    """The gallery of each data set, none where another data set of the same val images has been shown already, or where
    there are no images."""
    shown = []
    for sample in samples.values():
        again = sample.images is None or any(torch.equal(sample.images, other.images) for other in shown)
        yield [] if again else gallery(sample)
        shown += [] if again else [sample]


def gallery(sample, classes=10, each=4):
    """[(class name, its first val images as a column)] of the first classes; without labels columns without a name."""
    if not sample.labelled:
        images = sample.images[:len(sample.images) // each * each][:classes * each]
        return [("", *sheet(part, 1)) for part in images.split(each)]
    shown = []
    for label, name in enumerate(sample.classes[:classes]):
        images = sample.images[sample.labels == label][:each]
        if len(images):
            shown.append((name, *sheet(images, 1)))
    return shown


def queries(sample):
    """Positions of the images whose neighbours are shown: one for each of the first classes; without labels the first."""
    if not sample.labelled:
        return torch.arange(min(QUERIES, len(sample.labels)))
    first = [(sample.labels == label).nonzero()[:1, 0] for label in sample.labels.unique()]
    return torch.cat(first)[:QUERIES]


def neighbours(row, sample):
    """(sheet of the queries' nearest val images, its width, precision in percent over all val images of the sample). Without
    labels nothing is framed, and the precision is None."""
    similarity = row.features @ row.features.T
    similarity.fill_diagonal_(-torch.inf)
    nearest = similarity.topk(min(NEIGHBOURS, len(similarity) - 1), dim=1).indices
    shown = queries(sample)
    tiles = sample.images[nearest[shown].flatten()]
    if not sample.labelled:
        return *sheet(tiles, nearest.shape[1]), None
    right = sample.labels[nearest] == sample.labels[:, None]
    return *sheet(tiles, nearest.shape[1], right[shown].flatten()), 100 * right.float().mean().item()


def maps(rows, samples):
    """The features of every run in two dimensions, coloured by class, without labels by k-means' clusters: {title: data
    URI}."""
    rows = [row for row in rows if row.features is not None]
    if not rows:
        return {}
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    plt, found = pyplot(), {}
    for row in rows:
        sample, features = samples[row.run.data], row.features[:POINTS].numpy()
        colour = sample.labels[:POINTS] if sample.labelled else cluster.kmeans(
            row.features[:POINTS], min(CLUSTERS, len(features)))[0]
        tsne = TSNE(perplexity=min(30, (len(features) - 1) / 3), init="pca", max_iter=400, random_state=0)
        with threadpool_limits(1):  # of so few points: further threads only wait for each other, which uses a core, too
            x, y = tsne.fit_transform(features).T
        figure, axis = plt.subplots(figsize=(3, 2.8), layout="constrained")
        axis.set_axis_off()
        axis.scatter(x, y, c=np.array(PALETTE)[colour.numpy() % len(PALETTE)], s=9, linewidths=0)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
        plt.close(figure)
        found[row.title] = uri(file.getvalue())
    return found


def legend(samples):
    """[(colour, class)] of the 2-D embedding, where each class has a colour of its own."""
    classes = [sample.classes if sample.labelled else [] for sample in samples.values()]
    return list(zip(PALETTE, classes[0])) if len(classes) == 1 and len(classes[0]) <= len(PALETTE) else []
