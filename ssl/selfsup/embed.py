"""Features of files, as the protocols see these in shards: batch by batch, with little in memory. The files are images,
or of the kind of column that the encoder takes."""

import collections
import csv
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from selfsup import evals
from selfsup.core import bars, files
from selfsup.data import columns, images
from selfsup.data.files import content
from selfsup.data.images import Unreadable, blamed
from selfsup.errors import UserError, nearest_path
from selfsup.sources import folder as image_folder

BATCH = 512  # images, and fewer of large ones:
BYTES = 3 * 2**23  # a batch: 2^23 pixels in colour
SHOWN = 20  # unreadable files that are named; all are counted
TILE = 128  # pixels, of an image in the picture of neighbours


def reads(encoder):
    """(the encoder's column, extensions of the files that its values can be read from). Raises UserError if none can."""
    column = columns.picture(encoder.size) if encoder.takes == "image" else None
    if "column" in encoder.info:
        column = columns.of({"schema": {encoder.takes: encoder.info["column"]}})[encoder.takes]
    if column is None or column.kind in ("text", "number"):
        raise UserError(f"the encoder takes the column '{encoder.takes}', which is not read from files of its own; "
                        f"judge it on shards")
    if column.kind == "frames":
        return column, columns.VIDEOS
    return column, tuple(dict.fromkeys((*(images.EXTENSIONS if column.kind == "image" else ()), *column.extensions)))


def find(folder, extensions=images.EXTENSIONS):
    """Files below `folder` with one of the extensions: names relative to it, sorted. As the source `folder` finds them."""
    if not Path(folder).is_dir():
        raise UserError(f"no such folder: {folder}{nearest_path(folder)}")
    names = image_folder.files(Path(folder), extensions)
    if not names:
        what = "images" if extensions[0] in images.EXTENSIONS else "files that the encoder takes"
        raise UserError(f"no {what} in {folder}: looked for files ending in {', '.join(extensions)}")
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:  # Parquet would choke on it, perhaps hours later
            raise UserError(f"{folder}: the file name {name!a} is not UTF-8; rename it") from None
    return names


def read(path, column):
    """What a shard would hold of a file: of an image uint8 (3, size, size), through the same JPEG where it stores one.

    Raises Unreadable."""
    data = content(path)
    with blamed():
        stored, _ = column.encode(data)
        return column.decode(column.parse(column.find(stored)))


def decoded(paths, column, ahead):
    """Yields (position, what `read` gives or Unreadable) in order, `ahead` files decoded in advance.

    Threads, as Pillow lets go of Python's lock while it decodes and resizes."""
    def attempt(position, path):
        try:
            return position, read(path, column)
        except Unreadable as error:
            return position, error

    pool = ThreadPoolExecutor()
    try:
        waiting = collections.deque()
        for position, path in enumerate(paths):
            waiting.append(pool.submit(attempt, position, path))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def features(encoder, paths):
    """Yields (positions in `paths`, features float32 (n, encoder.dim) on the encoder's device), with a progress bar.

    Unreadable files are left out, counted and named on stderr; a UserError if no file can be read."""
    column, _ = reads(encoder)
    batch = max(1, min(BATCH, BYTES // column.bytes))
    positions, values, bad = [], [], []

    def embedded():
        batch = torch.from_numpy(np.stack(values))  # which keeps the order of an image's axes in memory
        return positions, evals.embed(encoder, evals.Batch({encoder.takes: batch, "label": torch.zeros(len(batch))}))[0]

    for position, value in bars.bar(decoded(paths, column, 2 * batch), "embed", len(paths)):
        if isinstance(value, Unreadable):
            bad.append(f"{paths[position]}: {value}")
            continue
        positions.append(position)
        values.append(value)
        if len(values) == batch:
            yield embedded()
            positions, values = [], []
    if values:
        yield embedded()
    if len(bad) == len(paths):
        raise UserError(f"none of {len(paths)} files can be read; the first is {bad[0]}")
    if bad:
        print(f"skipped {len(bad)} unreadable of {len(paths)} files", *bad[:SHOWN], sep="\n  ", file=sys.stderr)


def write(encoder, folder, out):
    """Write the features of all images below `folder` to `out`, in the format that its ending says (`FORMATS`); -> how many.

    Of each image path, relative to `folder`, and feature, float32 × encoder.dim. Raises UserError for another ending."""
    format = writer(out)
    names = find(folder, reads(encoder)[1])
    found = (([names[i] for i in positions], x.cpu().numpy()) for positions, x in
             features(encoder, [Path(folder) / name for name in names]))
    about = {key: encoder.info[key] for key in ("run", "method", "seed", "data", "code", "size")}
    with files.naming(out):
        return format(found, out, encoder.dim, about)


def writer(out):
    """What writes the format that the ending of `out` says; UserError for one that nobody here writes."""
    ending = Path(out).suffix.lower()
    if ending not in FORMATS:
        raise UserError(f"{out}: features are written as {', '.join(FORMATS)}, and the ending says which")
    return FORMATS[ending]


def parquet(found, out, dim, about):
    """Columns path and feature. The file's metadata say whose features they are, as JSON under "selfsup"."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("path", pa.string()), ("feature", pa.list_(pa.float32(), dim))], {"selfsup": json.dumps(about)})
    count = 0
    # A dictionary of distinct values pays for repeated ones; these are all different.
    with pq.ParquetWriter(out, schema, use_dictionary=False) as file:
        for paths, x in found:
            rows = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), dim)
            file.write_batch(pa.record_batch([pa.array(paths), rows], schema=schema))
            count += len(paths)
    return count


def comma_separated(found, out, dim, about):
    """A row an image: path, and a column a number, f0 and on."""
    count = 0
    with open(out, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", *(f"f{i}" for i in range(dim))])
        for paths, x in found:
            rows.writerows([path, *line] for path, line in zip(paths, x.astype(str)))
            count += len(paths)
    return count


def numpy_array(found, out, dim, about):
    """The array (n, dim), and beside it a text file of the paths, one a line."""
    paths, x = gathered(found, dim)
    with open(out, "wb") as file:
        np.save(file, x)
    Path(out).with_suffix(".txt").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    return len(paths)


def numpy_archive(found, out, dim, about):
    """The arrays path (n,) and feature (n, dim), and whose features they are as JSON, selfsup."""
    paths, x = gathered(found, dim)
    with open(out, "wb") as file:
        np.savez(file, path=np.array(paths), feature=x, selfsup=json.dumps(about))
    return len(paths)


def gathered(found, dim):
    paths, parts = [], [np.zeros((0, dim), np.float32)]
    for names, x in found:
        paths += names
        parts.append(x)
    return paths, np.concatenate(parts)


FORMATS = {".parquet": parquet, ".csv": comma_separated, ".npy": numpy_array, ".npz": numpy_archive}


def neighbours(encoder, folder, queries, k):
    """The k images below `folder` most similar to each query, by cosine: a list [(similarity, path), …] for each.

    queries: image files. One that lies in `folder` is not its own neighbour. Raises UserError for an unreadable one."""
    column, extensions = reads(encoder)
    folder, names = Path(folder), find(folder, extensions)
    for query in queries:
        try:
            read(query, column)
        except Unreadable as error:
            raise UserError(f"{query}: {error}{'' if Path(query).exists() else nearest_path(query)}") from None
    unit = torch.cat([F.normalize(x, dim=1) for _, x in features(encoder, queries)])
    where = {name: position for position, name in enumerate(names)}
    itself = {}
    for row, query in enumerate(queries):
        path = Path(query).resolve()
        if path.is_relative_to(folder.resolve()):
            itself[row] = where.get(path.relative_to(folder.resolve()).as_posix())
    best = unit.new_full((len(queries), 0), 0.0)
    found = torch.empty(len(queries), 0, dtype=torch.long, device=unit.device)
    for positions, x in features(encoder, [folder / name for name in names]):
        similarity = unit @ F.normalize(x, dim=1).T
        for row, position in itself.items():
            if position in positions:
                similarity[row, positions.index(position)] = -torch.inf
        # Only the best so far are kept, not all features.
        positions = torch.tensor(positions, device=unit.device).expand(len(queries), -1)
        best, found = torch.cat([best, similarity], 1), torch.cat([found, positions], 1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        found = found.gather(1, order)
    rows = zip(best.tolist(), found.tolist())
    return [[(s, folder / names[i]) for s, i in zip(*row) if s > -torch.inf] for row in rows]


def draw(queries, rows, out):
    """Write a PNG of what `neighbours` found: a row for each query, its image first, similarities beneath."""
    font, gap, line = ImageFont.load_default(14), 6, 20
    width = (TILE + gap) * (1 + max(map(len, rows))) + 3 * gap
    sheet = Image.new("RGB", (width, (TILE + gap + line) * len(rows) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (query, row) in enumerate(zip(queries, rows)):
        y = gap + i * (TILE + gap + line)
        for j, (path, words) in enumerate([(query, "query"), *((path, f"{s:.3f}") for s, path in row)]):
            x = gap + j * (TILE + gap) + (2 * gap if j else 0)
            try:
                tile = images.square(images.load(content(path)), TILE)
            except Unreadable as error:
                raise UserError(f"{path}: {error}, and only pictures can be drawn; leave -o out") from None
            sheet.paste(tile, (x, y))
            pen.text((x, y + TILE + 2), words, "black", font)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    files.write(out, file.getvalue())
