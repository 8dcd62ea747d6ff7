"""`selfsup COMMAND`: the catalogue of methods, and what trained encoders are good for. Run it where data/ lies.

Everything heavy is imported by the command that needs it, so that --help answers at once, and
`compare` unless it has to ask for a method's defaults.
"""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path

from selfsup import config, errors, process
from selfsup.config import catalogue
from selfsup.errors import UserError, elsewhere, nearest, nearest_path

ENCODER = "a run's name, such as quick-simclr, or an encoder folder: a run's, or that of one of its seeds"


@errors.main
def main(words=None):
    process.answer_interrupts()
    args = parser().parse_args(words)
    try:
        args.command(args)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        if error.name.startswith("selfsup"):
            raise
        raise UserError(f"{error.name} is not installed: pip install -r requirements.txt") from None
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser():
    top = argparse.ArgumentParser("selfsup", description="Self-supervised learning, every method under one protocol.")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(function):
        text = function.__doc__
        made = commands.add_parser(function.__name__, help=text.partition(".")[0], description=text)
        made.set_defaults(command=function)
        return made.add_argument

    add = command(methods)
    add("name", nargs="?", metavar="METHOD", help="one method, in full")
    add = command(encoders)
    add("name", nargs="?", metavar="ENCODER", help="one encoder, in full; or one of timm's models")
    add = command(train)
    add("folder", metavar="FOLDER", type=Path, help="of images, in class folders or not")
    add("--method", required=True, help="by which it is trained: `selfsup methods` lists them")
    add("--encoder", help="what is trained, such as resnet18 (default: that of conf/config.yaml)")
    add("--images", type=int, help="the budget, images seen (default: that of conf/config.yaml)")
    add("--size", type=int, default=64, help="to which images are made, in pixels (default: %(default)s)")
    add("--judge", type=Path, metavar="LABELLED_FOLDER", help="images in class folders, to judge on (default: FOLDER, if it has classes)")
    add = command(embed)
    add("encoder", metavar="ENCODER", help=ENCODER)
    add("folder", metavar="FOLDER", help="a folder of images, in folders or not")
    add("-o", "--out", type=Path, required=True, help="the file to write: .parquet, .csv, .npz or .npy")
    add = command(neighbours)
    add("encoder", metavar="ENCODER", help=ENCODER)
    add("folder", metavar="FOLDER", help="a folder of images, in folders or not")
    add("queries", metavar="QUERY", nargs="+", help="an image file")
    add("-k", type=int, default=5, help="neighbours a query (default: %(default)s)")
    add("-o", "--out", type=Path, help="also draw them, a row for each query, as this PNG file")
    add = command(export)
    add("encoder", metavar="ENCODER", help=ENCODER)
    add("--to", required=True, choices=("onnx", "timm", "torchvision", "hf"), help="what is to load it")
    add("-o", "--out", type=Path, help="the file to write, for hf the folder (default: RUN-SEED, with what it is, here)")
    add = command(compare)
    add("runs", metavar="RUN", nargs=2, help=ENCODER)
    return top


# The commands


def methods(args):
    """The catalogue: each method's paper, family, inputs, and parameters with their defaults.

    Parameters are what `args` of a run in params.yaml can set, those of the views included; of one method each with its
    type and range."""
    from selfsup import methods

    of = catalogue.families()
    order = list(of)
    names = sorted(methods.names(), key=lambda name: order.index(name) if name in of else len(order))
    last = None
    for name in [args.name] if args.name else names:
        method = methods.load(name)
        if of and of.get(name, "one's own") != last:
            last = of.get(name, "one's own")
            print(f"{last}\n")
        print(entry(name, method, full=bool(args.name)), end="\n\n")


def encoders(args):
    """The encoders: what each takes, its arguments with their defaults, and what images of 32, 64 and 224 px cost it.

    Multiply-adds and the memory that training keeps for the way back are counted, an image and forwards, with default
    arguments; the latter in float32, half of it under bf16. Besides, any of timm's models by its name."""
    from selfsup import costs

    for name in [args.name] if args.name else costs.names():
        summary, lines = costs.entry(name, full=bool(args.name))
        print(name, wrapped(summary), *(wrapped(line, title) for title, line in lines), sep="\n", end="\n\n")


def train(args):
    """Train an encoder on a folder of images, judge it, and say where it is; no YAML to write.

    Writes an experiment into conf/experiment, which can be edited, repeated and shared, chooses it and runs it as `make
    experiment` and `make repro` do: shards, training, judging, report. The same command goes on where it was stopped."""
    for option, value in (("--images", args.images), ("--size", args.size)):
        if value is not None and value < 1:
            raise UserError(f"{option} should be at least 1, not {value}")
    from selfsup import own

    name = own.write(args.folder, args.method, args.encoder, args.images, args.size, args.judge)
    encoders, report = own.run(name)
    print(f"\nExperiment: conf/experiment/{name}.yaml\nEncoder:    {encoders[f'{name}-{args.method}']}/0\nReport:     {report.resolve()}")


def embed(args):
    """Write the features of all images below a folder to a file, in the format that its ending says.

    .parquet has the columns path and feature, .csv a column a number, .npz the arrays path and feature; .npy has the
    features alone, and a text file beside it the paths. Images are decoded, resized and normalised exactly as for
    training and judging. Unreadable ones are left out and named."""
    from selfsup import embed

    if not args.out.is_dir():
        embed.writer(args.out)  # before an encoder is loaded
    with whole(args.out) as part:
        encoder = load(args.encoder)
        count = embed.write(encoder, args.folder, part)
    print(f"{args.out}: {count} images, {encoder.dim} numbers each")


def neighbours(args):
    """Find the images below a folder that are most similar to a query, by the cosine of their features."""
    if args.k < 1:
        raise UserError(f"-k should be at least 1, not {args.k}")
    with whole(args.out) if args.out else contextlib.nullcontext() as part:
        encoder = load(args.encoder)
        from selfsup import embed

        found = embed.neighbours(encoder, args.folder, args.queries, args.k)
        if part:
            embed.draw(args.queries, found, part)
    for query, row in zip(args.queries, found):
        print(query)
        for similarity, path in row:
            print(f"  {similarity:.3f}  {path}")


def export(args):
    """Write an encoder for another library. It is loaded again, and its features compared, before it is kept.

    onnx: one file, for any number of images; its metadata hold mean, std and size. timm, torchvision: weights under
    that library's names, and beside them a .py file with the lines that load them. hf: a folder as Hugging Face's hub
    holds of timm's networks, for transformers and timm. timm has networks like our vit and resnet18, and its own;
    torchvision like our resnet18, and timm's ResNets, DenseNets, VGGs and plain ViTs; hf like our vit, and those of
    timm's that end in the mean over their map. onnx takes every encoder of images."""
    encoder = load(args.encoder, device="cpu")
    from selfsup import export

    ending = args.to if args.to in ("onnx", "hf") else f"{args.to}.safetensors"
    out = args.out or Path(f"{encoder.info['run']}-{encoder.info['seed']}.{ending}")
    if args.to == "hf" and out.exists():
        raise UserError(f"{out} is there already: name a folder that is to be made, or remove it")
    with whole(out) as part:
        difference = export.write(encoder, args.to, part)
    loads = f", loaded as in {export.beside(out, args.to)}" if args.to in ("timm", "torchvision") else ""
    print(f"{out}{loads}: the same features, to {difference:.1g}")


def compare(args):
    """Say in what two runs differ: data, code, parameters, and by how much in each result, the second less the first.

    Results have their 95 % interval. Which files of code differ is known from dvc.lock."""
    from selfsup import compare

    a, b = (compare.side(place(word)) for word in args.runs)
    rows = [("", a.title, b.title, ""), *compare.rows(a, b)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]).rstrip())


# What they share


def place(word):
    """The folder of a run, or of one of its seeds, from its path or the run's name."""
    if Path(word).is_dir():
        return Path(word)
    if not config.NAME.fullmatch(word):
        raise UserError(f"no such folder: {word}{nearest_path(word)}")
    folder = config.encoders(word)
    if not folder.is_dir():
        there = [folder.name for folder in Path("data/encoders").glob("*/*")]
        hint = nearest(word, there) if there else elsewhere(folder) or "; `dvc pull` or `dvc repro` makes that folder"
        raise UserError(f'no run "{word}" in data/encoders{hint}')
    return folder


def load(word, device=None):
    """The encoder that a user names, on the GPU if there is one."""
    folder = place(word)
    import torch

    import selfsup

    return selfsup.load(folder, frozen=True).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


@contextlib.contextmanager
def whole(out):
    """A path to write instead of `out`. If the block ends well, what lies there and beside it is moved to `out` and
    beside that; if not, nothing is left."""
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file in it")
    if out.exists() and not out.is_file():
        raise UserError(f"{out} is no regular file, whose place another can take")
    if not out.parent.is_dir():
        raise UserError(f"no such folder: {out.parent}{nearest_path(out.parent)}")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as folder:
        yield Path(folder) / out.name
        for file in Path(folder).iterdir():
            os.replace(file, out.parent / file.name)


def wrapped(text, title=None):
    """Lines of the terminal's width, with a title beside them or with none."""
    width = min(120, shutil.get_terminal_size().columns)
    first, rest = ("  ", "  ") if title is None else (f"  {title:12}", " " * 14)
    return "\n".join(textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False,
                                   break_long_words=False))


def entry(name, method, full):
    """A method's entry in the catalogue; `full` with all that its docstring says."""
    import inspect

    summary, paper = catalogue.summary(method), catalogue.paper(method)
    rest = inspect.getdoc(method).partition("\n\n")[2]
    known = config.arguments(method)
    parameters = [key if value is inspect.Parameter.empty else f"{key}={value!r}" for key, (_, value) in known.items()]
    lines = {"paper": paper, "inputs": f"{type(method.inputs).__name__} of {', '.join(method.inputs.columns)}"}
    if not full:
        lines["parameters"] = ", ".join(parameters)
    text = [name, wrapped(summary), *(wrapped(value, title) for title, value in lines.items() if value)]
    if full:
        wide = max(map(len, parameters), default=0)
        text += [f"  {'' if i else 'parameters':12}{told:{wide}}  {config.words(kind)}".rstrip()
                 for i, (told, (kind, _)) in enumerate(zip(parameters, known.values()))]
    return "\n".join([*text, "", textwrap.indent(rest, "  ")] if full and rest else text)
