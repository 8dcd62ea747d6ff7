"""A place to read: the sources of a site, which Sphinx makes HTML of (`make docs`).

They are docs/, README and CONTRIBUTING as they are, but for their links, and a page for each method: what its docstrings
say, its arguments, its pictures where encoders are here, and its figures from the committed results.
"""

import inspect
import os
import re
import shutil
from pathlib import Path

import yaml

from selfsup import artefacts, config, evals, methods
from selfsup.config import catalogue
from selfsup.core import files
from selfsup.report import interval, literal

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
URL = re.compile(r"https?://[^\s,;)]*[^\s,;).]")
FIGURES = "claims-figures.html"  # the page of the claims as `make claims` makes it
FIRST = ("lectures", "quick")  # experiments whose pictures and figures come first
LEXERS = ("sh", "python", "yaml")  # of the blocks of code in docs/; what is neither is text


def write(root, pages):
    """Write the folder `pages`, of Markdown, from the checkout `root`."""
    root, pages = Path(root), Path(pages)
    shutil.rmtree(pages, ignore_errors=True)
    places = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
    for kind in ("*.md", "*.png"):
        places |= {f"docs/{file.name}": file.name for file in sorted((root / "docs").glob(kind))}
    for file in sorted(root.glob("data/results/*/tune.md")):
        places[file.relative_to(root).as_posix()] = f"tune/{file.parent.name}.md"
    for source, place in places.items():
        (pages / place).parent.mkdir(parents=True, exist_ok=True)
        if place.endswith(".md"):
            files.write(pages / place, page((root / source).read_text(encoding="utf-8"), source, places))
        else:
            shutil.copyfile(root / source, pages / place)
    if (root / "data/report/claims.html").exists():
        shutil.copyfile(root / "data/report/claims.html", pages / FIGURES)
        with (pages / "claims.md").open("a", encoding="utf-8") as file:
            file.write(f'\n<a href="{FIGURES}">All of them with their figures</a>\n')
    trained = runs(root)
    claimed = claims(root, trained)
    (pages / "methods").mkdir()
    families = grouped()
    for names in families.values():
        for name in names:
            files.write(pages / f"methods/{name}.md", method_page(name, root, pages, trained, claimed))
    files.write(pages / "methods/index.md", overview(families))
    with (pages / "index.md").open("a", encoding="utf-8") as index:
        index.write(contents(root, places))


def page(text, source, places):
    """A Markdown text of the repository for the site: links to what is there lead to it, those to other files are words,
    and the names of methods in README's table lead to their pages."""
    def link(found):
        picture, words, target = found.groups()
        path, _, anchor = target.partition("#")
        if not path or "://" in target:
            return found[0]
        there = places.get(os.path.normpath(os.path.join(os.path.dirname(source), path)))
        if there is None:
            return words
        there = os.path.relpath(there, os.path.dirname(places[source]) or ".")
        return f"{picture}[{words}]({there}{'#' * bool(anchor)}{anchor})"

    parts = FENCE.split(text)
    for i, part in enumerate(parts):
        parts[i] = coded(part) if i % 2 else LINK.sub(link, part)
    text = "".join(parts)
    return re.sub(r"^\| `.+?` \|", cell, text, flags=re.MULTILINE) if source == "README.md" else text


def cell(found):
    """The first cell of a row, with the methods in it as links."""
    known = methods.names()
    return re.sub(r"`(\w+)`", lambda one: f"[{one[0]}](methods/{one[1]}.md)" if one[1] in known else one[0], found[0])


def coded(block):
    """A block of code in Sphinx's words: a language that it knows, and the file's name above it where there is one."""
    language, name = re.match(r"```(\w*) ?(.*)", block).groups()
    name = name.replace(">> ", "at the end of ")
    if language not in LEXERS:
        return re.sub(r"\A```.*", "```text", block)
    return re.sub(r"\A```.*", f"```{{code-block}} {language}\n:caption: {name}\n" if name else f"```{language}", block)


def grouped():
    """{family: names of methods}, in README's order; those that it does not name are one's own."""
    found, families = {}, catalogue.families()
    for name in [name for name in families if name in methods.names()]:
        found.setdefault(families[name], []).append(name)
    own = [name for name in methods.names() if name not in families]
    return found | ({"one's own": own} if own else {})


def runs(root):
    """{experiment: {run: its entry}} of conf/experiment, the lectures' first."""
    found = {file.stem: yaml.safe_load(file.read_text()).get("runs", {})
             for file in sorted((root / "conf/experiment").glob("*.yaml"))}
    return {name: found[name] for name in dict.fromkeys([*FIRST, *found]) if name in found}


def claims(root, trained):
    """{method: names of the claims that are about runs of it}."""
    found = {}
    for experiment, entries in trained.items():
        stated = yaml.safe_load((root / f"conf/experiment/{experiment}.yaml").read_text()).get("claims", {})
        for claim, content in stated.items():
            for run in content.get("runs") or entries:
                found.setdefault(entries.get(run, {}).get("method"), {})[claim] = None
    return found


def method_page(name, root, pages, trained, claimed):
    """What there is to say of a method."""
    method = methods.load(name)
    told, rest = arguments(method)
    reads = ", ".join(f"`{column}`" for column in method.inputs.columns)
    lines = [f"# {name}", "", catalogue.summary(method), "", linked(catalogue.paper(method)), "", rest, "",
             "## Arguments", "", f"It reads {reads}, as {type(method.inputs).__name__}.", "", *told, "",
             "## Pictures", "", *pictures(name, method, root, pages, trained), "## Results", "",
             *results(name, root, trained)]
    listed = [f'<a href="../{FIGURES}#{claim}">{claim}</a>' for claim in claimed.get(name, {})]
    if listed and (pages / FIGURES).exists():
        lines += ["", f"What the lectures claim of it, what was found, and its figures: {', '.join(listed)}."]
    return "\n".join(lines) + "\n"


def arguments(method):
    """The table of a method's arguments; and what its docstring says after the paper, with a paragraph where a line begins
    with an argument's name, as in `hidden, dim: of the head`."""
    known = config.arguments(method)
    table = ["| argument | unless given | may be |", "| --- | --- | --- |"]
    for name, (kind, default) in known.items():
        shown = "" if default is inspect.Parameter.empty else f"`{default!r}`"
        table.append(f"| `{name}` | {shown} | {literal(config.words(kind))} |")

    def apart(found):
        names = found[1].split(", ")
        return f"\n{', '.join(f'`{name}`' for name in names)}: " if set(names) <= set(known) else found[0]

    rest = re.sub(r"^(\w+(?:, \w+)*): ", apart, inspect.getdoc(method).partition("\n\n")[2], flags=re.MULTILINE)
    return table, linked(rest.strip("\n"))


def linked(text):
    """Addresses in a text as links; formulae of its own lines stay as they are."""
    return "\n".join(line if line.startswith("    ") else URL.sub(r"<\g<0>>", re.sub(r"<(?!https?:)", "&lt;", line))
                     for line in text.split("\n"))


def pictures(name, method, root, pages, trained):
    """What a method draws, in words, and its first run's that is here, which DVC keeps."""
    here = [folder for entries in trained.values() for run, entry in entries.items() if entry.get("method") == name
            for folder in sorted((root / config.encoders(run)).glob("*/pictures"))]
    for title, says in catalogue.pictures(method).items():
        drawn = next((folder / f"{title}.png" for folder in here if (folder / f"{title}.png").exists()), None)
        if drawn:
            copied(drawn, pages / f"methods/{name}-{title}.png")
            yield from (f"![{title}]({name}-{title}.png)", "")
        elif here:
            continue  # of another encoder, as attention is of ViTs, or never drawn
        yield from (f"**{title.replace('_', ' ').capitalize()}.** {says}", "")
    if not here:
        yield from ("They are drawn by a training and kept by DVC: after `dvc pull`, or a run of it, `make docs` shows them "
                    "here.", "")


def copied(drawn, out):
    """A picture, as large as the report shows it."""
    from PIL import Image

    with Image.open(drawn) as image:
        larger = max(1, min(3, round(560 / image.width)))
        image.resize((larger * image.width, larger * image.height), Image.Resampling.NEAREST).save(out)


def results(name, root, trained):
    """A table of what is committed: a run a line, beside random initialisation of the same encoder on the same data."""
    lines, told = [], measured(root)
    for experiment, entries in trained.items():
        for run, entry in entries.items():
            found = accuracies(root, run) if entry.get("method") == name else {}
            if found:
                alike = [other for other, one in entries.items() if one.get("method") == "random" and other != run
                         and all(one.get(key) == entry.get(key) for key in ("data", "encoder", "labels"))]
                floor = next(filter(None, (accuracies(root, other) for other in alike)), {})
                where = f"[{experiment}](../{experiment}.md)" if experiment in told else experiment
                ours, random = ("<br>".join(of.get(protocol, "") for protocol in found) for of in (found, floor))
                lines.append(f"| {where} | {run.removeprefix(f'{experiment}-')} | {ours} | {random} |")
    if not lines:
        return ["None are committed yet."]
    return ["Accuracy on test in percent, and its 95 % interval; beside it what the same encoder is worth at random.", "",
            "| experiment | run | accuracy | random initialisation |", "| --- | --- | --- | --- |", *lines]


def accuracies(root, run):
    """{protocol: Linear 72.4 [70.5, 74.3]} of a run, of those that have a column in a report's table."""
    found = {}
    for protocol in evals.names():
        file, module = root / config.results(run) / f"{protocol}.json", evals.load(protocol)
        content = artefacts.result(file) if file.exists() and getattr(module, "column", True) else {}
        if "accuracy" in content:
            found[protocol] = f"{module.title} {interval(content)}"
    return found


def overview(families):
    """The catalogue's first page."""
    lines = ["# Methods", "", "Every method of the lectures, by what it is taught by: its paper, its arguments, what its "
             "pictures show, and what it was found to be worth."]
    for family, names in families.items():
        lines += ["", f"## {family[0].upper()}{family[1:]}", "", "| method | is |", "| --- | --- |"]
        lines += [f"| [`{name}`]({name}.md) | {literal(catalogue.summary(methods.load(name)))} |" for name in names]
        lines += tree("", names)
    return "\n".join(lines) + "\n"


def tree(title, names):
    """Lines that give pages their place in the site's contents, which stand at its side."""
    return ["", "```{toctree}", ":hidden:", *([f":caption: {title}"] if title else []), "", *names, "```"]


def contents(root, places):
    """The site's contents, to stand in its first page: what was found by itself, and how a part is added."""
    added, found = parts(root), [*measured(root), "claims", "benchmarks"]
    pages = [Path(place).stem for place in places.values() if place.endswith(".md") and "/" not in place]
    guides = [name for name in pages if name not in {*added, *found, "index", "contributing"}]
    tuned = [place.removesuffix(".md") for place in places.values() if place.startswith("tune/")]
    return "\n".join([*tree("Methods", ["methods/index"]), *tree("Guides", guides), *tree("Results", found),
                      *tree("Adding a part", ["contributing", *added]), *tree("Tuning", tuned)]) + "\n"


def parts(root):
    """Pages on adding a part, which CONTRIBUTING names."""
    return list(dict.fromkeys(re.findall(r"docs/(\w+)\.md", (root / "CONTRIBUTING.md").read_text())))


def measured(root):
    """Pages on what an experiment found, which are called like it."""
    return [file.stem for file in sorted((root / "docs").glob("*.md"))
            if (root / f"conf/experiment/{file.name.replace('.md', '.yaml')}").exists() and file.stem not in parts(root)]
