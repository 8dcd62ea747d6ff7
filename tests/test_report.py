"""The report of a small experiment: real shards, encoders and result files, some of them missing."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pydantic
import pytest
import torch
import yaml
from PIL import Image

from selfsup import config, evals, nets, report
from selfsup import encoder
from selfsup.data import tars
from selfsup.report import facts, figures, panels, pictures
from selfsup import shards
from tests import quick

REPOSITORY = Path(__file__).parents[1]
ACCURACY = {"random": (20, 17, 23), "supervised": (80, 77, 83), "simclr": (40, 36, 44), "rotation": (24, 21, 27),
            "clip": (30, 27, 33), "lonely": (50, 47, 53)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    raw = quick.params()
    scenes = {"source": "scenes", "size": 32, "train": 20, "val": 60, "test": 20, "seed": 0, "max_bad": 0}
    raw.update(experiment="tiny", fetch=[], datasets={"scenes": scenes}, encoder={"name": "convnet", "width": 4})
    for protocol in raw["protocols"].values():
        if "runs" in protocol:
            protocol["runs"] = {}
    raw["protocols"]["zero_shot"]["runs"] = {"tiny-clip": "scenes"}
    run = {"data": "scenes", "seeds": [0]}
    methods = ("random", "supervised", "rotation", "clip", "moco")
    raw["runs"] = {f"tiny-{name}": {"method": name, **run} for name in methods}
    raw["runs"]["tiny-simclr"] = {"method": "simclr", **run, "seeds": [0, 1], "args": {"temperature": 0.2}}
    raw["runs"]["tiny-lonely"] = {"method": "simclr", **run, "encoder": {"name": "convnet", "width": 2}}
    raw["notes"] = {"tiny-rotation": "A scene's ground tells <which way> is up."}
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    params = config.load(root / "params.yaml")
    card = shards.write("scenes", params.datasets["scenes"].model_dump(exclude_none=True), root / "data/shards/scenes", workers=1)
    for name in ACCURACY:                                 # moco has nothing yet
        make(root, params, f"tiny-{name}", card, *ACCURACY[name])
    return root, params, report.build(params, root)


def make(root, params, name, card, accuracy, low, high):
    run, results = params.runs[name], root / config.results(name)
    results.mkdir(parents=True)
    cost = {"seconds": 125.0, "images": 30_000, "peak_memory_mb": 812, "parameters": 1_000_000,
            "flops_per_image": 35_123_456, "device": "cpu", "processes": 1}
    if name == "tiny-simclr":
        cost["made"] = {"date": "2026-11-02 10:00 UTC", "commit": "abcdef" * 6 + "abcd+", "machine": "2 × Some CPU",
                        "versions": {"python": "3.11.9", "torch": "2.14.1"}}
    (results / "cost.json").write_text(json.dumps({"seeds": {str(seed): cost for seed in run.seeds}}))
    result = {"accuracy": accuracy, "low": low, "high": high, "weight_decay": 0.001}
    (results / "linear.json").write_text(json.dumps({**result, "seeds": {str(seed): result for seed in run.seeds}}))
    if name in ("tiny-random", "tiny-simclr"):
        judge(results, run, result)
    if run.method == "clip":
        seed = {"prompt": "a {}", "prompts": {"a {}": 35.0, "<b>{}": 12.5, "for $_{$ a {}": 13.0}, "ensemble": {"val_accuracy": 33.0},
                "chance": 10.0}
        (results / "zero_shot.json").write_text(json.dumps({**result, "seeds": {"0": {**result, **seed}}}))
    for seed in run.seeds:
        torch.manual_seed(seed)
        folder = root / config.encoders(name) / str(seed)
        info = {"mean": card["mean"], "std": card["std"], "size": 32, "images": 30_000, "code": "c0de" * 16,
                "data": {"name": "scenes", "hash": card["hash"]}}
        encoder.save(folder, {"encoder": nets.build(**run.encoder)}, info)
        lines = [{"step": i, "images": 100 * i, "loss": 1 / i, "error": 2 / i, "error_mean_colour": 1.0, "lr": 0.1 * i}
                 for i in range(1, 20)]
        if run.method == "simclr":
            lines = [{**line, "std": 0.9, "rank": 3.0} for line in lines]
            lines.append({"step": 19, "images": 1900, "val_std": 0.8, "val_rank": 2.5})
        lines += [{"step": 19, "images": 1900, "val_loss": 0.3}, {"step": 0, "images": 0, "nmi": 0.4}]
        (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "pictures").mkdir()
        Image.new("RGB", (64, 32), "red").save(folder / "pictures/two_views.png")
        Image.new("L", (32, 32), "grey").save(folder / "pictures/affinity.png")
        if run.method == "clip":
            told = {"hidden_words": {"headings": ["caption", "guessed"], "rows": [["a <b> boat", "car"]]}}
            (folder / "texts.json").write_text(json.dumps(told))


def judge(results, run, result):
    """Results of the protocols that an experiment asks for run by run; seed 1 is better by 2 than seed 0."""
    def better(accuracy, seed, **more):
        return {"accuracy": accuracy + 2 * seed, "low": accuracy - 3, "high": accuracy + 3, **more}

    few = {str(seed): {**result, "linear": {"1": better(20, seed, labels=12), "10": better(30, seed, labels=120)},
                       "finetune": {"1": better(15, seed, labels=12), "10": better(41, seed, labels=120)}}
           for seed in run.seeds}
    deep = {str(seed): {**result, "layers": {"1": better(22, seed), "2": better(33, seed), "10": better(28, seed)}}
            for seed in run.seeds}
    own = {str(seed): result for seed in run.seeds}
    for protocol, seeds in (("low_shot", few), ("layerwise", deep), ("finetune", own), ("retrieval", own)):
        (results / f"{protocol}.json").write_text(json.dumps({**result, "seeds": seeds}))


class Page(HTMLParser):
    """Rows of the first table as text, those of all `tables`, and everything that the page would load."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.loads, self.open = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.loads += [attributes[name] for name in ("src", "href", "xlink:href") if attributes.get(name)]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data):
        if self.open:
            self.tables[-1][-1][-1] += data.strip() + " "

    @property
    def table(self):
        return self.tables[0]


def test_the_page_loads_nothing(built):
    page = Page(built[2].read_text())
    links = {place for place in page.loads if place.startswith("../")}  # to the runs' files, which nothing loads
    assert all(place.startswith(("data:image/png;base64,", "#")) for place in page.loads if place not in links)
    folders = [built[0] / "data/encoders/tiny/tiny-simclr" / seed for seed in "01"]
    assert {*folders, built[0] / config.results("tiny-clip")} < {(built[2].parent / place).resolve() for place in links}
    assert not re.search(r"url\((?!#)|@import", built[2].read_text())


def test_the_table(built):
    head, *rows = Page(built[2].read_text()).table
    rows = {row[0].strip(): [cell.strip() for cell in row] for row in rows}
    assert list(rows) == ["random", "supervised", "rotation", "clip", "moco", "simclr", "lonely"]
    assert len({len(row) for row in [head, *rows.values()]}) == 1
    assert [title.strip() for title in head[1:6]] == ["Linear %", "Fine-tuned %", "Retrieval %", "Zero-shot %",
                                                      "Linear, % of ceiling"]
    assert rows["simclr"][1:] == [
        *["40.0 36.0–44.0"] * 3, "", "50.0",
        "above floor Linear, Fine-tuned, Few labels, Best layer, Retrieval", "simclr convnet (width 4)",
        "30,000", "2 min 05 s", "812 MB", "1 M", "35.1 M"]
    assert {name: row[5] for name, row in rows.items()} == {"random": "25.0", "supervised": "100.0", "rotation": "30.0",
                                                            "clip": "37.5", "moco": "", "simclr": "50.0", "lonely": ""}
    verdicts = {name: row[6].removesuffix(", Fine-tuned, Few labels, Best layer, Retrieval")
                for name, row in rows.items()}
    assert verdicts == {"random": "floor", "supervised": "ceiling", "rotation": "not above floor note", "moco": "",
                        "simclr": "above floor Linear", "clip": "above floor Linear",
                        "lonely": "no floor with this encoder"}
    assert rows["moco"][1:7] == [""] * 6 and rows["moco"][8:] == [""] * 5


def test_no_share_of_a_ceiling_where_there_is_none(built):
    rows = [row for row in report.collect(built[1], built[0]) if row.title in ("supervised", "lonely", "moco")]
    assert panels.shared(built[1], rows) is None and rows[0].share("linear") == 100


def test_intervals_of_two_seeds_and_runs_without_a_floor_are_explained(built):
    notes = (built[0] / "data/report/tiny/table.md").read_text()
    assert "standard error times 12.7, that of three seeds times 4.3, of five times 2.8" in notes
    assert "By test samples alone" in notes and "simclr Linear [36.0, 44.0]" in notes
    assert "No floor with this encoder, or" in notes


def test_uneven_classes_have_their_counts_and_a_balanced_accuracy(built, tmp_path):
    from selfsup.report import uneven

    root, params, _ = built
    card = tars.card_of(root / "data/shards/scenes")
    assert not [*uneven.notes({"scenes": card})] and not uneven.panel(params, report.collect(params, root))
    skewed = {**card, "class_counts": {"test": [40, *[5] * (len(card["classes"]) - 1)]}}
    (note,) = uneven.notes({"scenes": skewed})
    assert f"always says {card['classes'][0]} is right about 47.1 %" in note and f"{card['classes'][1]} 5" in note
    shutil.copytree(root, tmp_path / "skewed")
    file = tmp_path / "skewed" / config.results("tiny-simclr") / "linear.json"
    content = json.loads(file.read_text())
    for seed in content["seeds"].values():
        seed["balanced"] = {"accuracy": 33.0, "low": 30.0, "high": 36.0}
    file.write_text(json.dumps(content))
    (panel,) = uneven.panel(params, report.collect(params, tmp_path / "skewed"))
    cells = {row.title: cell for row, (cell,) in panel.table[1]}
    assert panel.table[0] == ["Linear"] and cells["simclr"]["accuracy"] == 33 and cells["random"] is None


def test_few_labels_and_layers(built):
    tables = [[[cell.strip() for cell in row] for row in table] for table in Page(built[2].read_text()).tables]
    table, saved = (next(table for table in tables if start in table[0][-1]) for start in ("linear", "labels, $"))
    assert table[0] == ["Run", "1 %, fine-tuned", "1 %, linear", "10 %, fine-tuned", "10 %, linear"]
    assert table[1] == ["random", "15.0 12.0–18.0", "20.0 17.0–23.0", "41.0 38.0–44.0", "30.0 27.0–33.0"]
    # Two seeds, 20 and 22: Student's t with one degree of freedom, 12.706 times their standard error of 1.
    assert table[2][:3] == ["simclr", "16.0 3.3–28.7", "21.0 8.3–33.7"] and len(table) == 3
    text, plain = built[2].read_text(), (built[2].parent / "table.md").read_text()
    assert "Labels of scenes: 1 % are 12, 10 % are 120." in text and "Labels of scenes: 1 % are 12" in plain
    assert "| simclr | 16.0 [3.3, 28.7] |" in plain
    assert "| Run | Layer 1 | Layer 2 | Layer 10 |" in plain and "| random | 22.0 [19.0, 25.0] | 33.0" in plain
    # What 12 labels cost at 10 s and $15 an hour; the two runs have seed 0 in common, in which they are equal.
    assert saved[0] == ["Run", "12 labels, $0.50", "120 labels, $5.00"]
    assert [row[0] for row in saved[1:]] == ["random, linear", "simclr, linear", "simclr, fine-tuned"]
    assert saved[3] == ["simclr, fine-tuned", "$0.00", "$0.00"] and 'id="labels"' in text and "a million $41,667" in text
    assert "| random, fine-tuned, from scratch | 15.0 [12.0, 18.0] | 41.0 [38.0, 44.0] |" in plain
    assert 'id="layers"' in text and "retrieval 40.0 %, 36.0–44.0" in text


def test_collapse_is_shown_of_the_runs_that_record_it(built):
    root, params, path = built
    text = path.read_text()
    assert 'id="collapse"' in text and text.count("effective rank") > 1
    assert "<dt>Curves</dt>" in text
    rows = report.collect(params, root)
    for row in rows:
        assert (figures.collapse_plot([row]) is not None) == (row.title in ("simclr", "lonely"))


def test_an_experiment_without_them_has_neither_table_nor_figure(built):
    rows = [row for row in report.collect(built[1], built[0]) if row.title in ("clip", "rotation")]
    assert figures.collapse_plot(rows) is None
    assert [panel.name for panel in report.shown(built[1], rows)] == ["prompts"]


def test_the_same_table_in_markdown(built):
    lines = (built[2].parent / "table.md").read_text().splitlines()
    lines = lines[:lines.index("## Few labels")]
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert len({line.count("|") for line in lines if line.startswith("| ")}) == 1
    simclr = next(row for row in table if row[0] == "simclr")
    assert simclr[:4] == ["simclr", "simclr", "convnet (width 4)", "40.0 [36.0, 44.0]"]
    assert "above floor (Linear, Fine-tuned, Few labels, Best layer, Retrieval)" in simclr and "35.1 M" in simclr
    assert simclr[table[0].index("Linear, % of ceiling")] == "50.0"
    assert any(line.startswith("Data set scenes: 20 train / 60 val / 20 test") for line in lines)


@pytest.mark.parametrize("text, shown", [
    ("40.0 [36.0, 44.0], hash 12ab, context_encoder (width 4)", None), ("<b>a</b> & b", "&lt;b&gt;a&lt;/b&gt; &amp; b"),
    ("a | b", "a \\| b"), ("`x`", "\\`x\\`"), ("[x](javascript:y)", "[x\\](javascript:y)"), ("a\n# b\r\nc", "a # b c"),
    ("back\\slash **x**", "back\\\\slash \\*\\*x\\*\\*"),
])
def test_names_are_data_in_markdown_too(text, shown):
    assert report.literal(text) == (text if shown is None else shown)


def test_notes_on_a_run_stand_beside_its_verdict(built):
    _, _, path = built
    text = path.read_text()
    assert "<p>A scene&#39;s ground tells &lt;which way&gt; is up.</p>" in text
    (row,) = [row for row in Page(text).table if row[0].strip() == "rotation"]
    assert any("not above floor" in cell and "note" in cell for cell in row)
    assert "- rotation: A scene's ground tells &lt;which way&gt; is up." in path.with_name("table.md").read_text()


def test_curves_pictures_and_neighbours(built):
    text = built[2].read_text()
    assert all(word in text for word in ("two views", "mean colour", "nmi", "No encoder yet", "random initialisation"))
    assert "temperature 0.2" in text and "c0dec0dec0de" in text and "seeds 0, 1" in text
    assert "&lt;b&gt;{}" in text and "<b>{}" not in text  # what users write is text, not markup
    assert "above chance, which is 10.0 %" in text and "from 12.5 to 35.0 %" in text


def test_a_run_says_how_it_came_about(built):
    text = built[2].read_text()
    section = text[text.index('<h3 id="simclr"'):text.index('<h3 id="lonely"')]
    facts = dict(re.findall(r"<dt>(.+?)</dt><dd>(.*?)</dd>", section, re.DOTALL))
    assert facts["Method"] == "simclr, temperature 0.2" and facts["Encoder"] == "convnet (width 4), 1 M parameters"
    assert facts["Trained"].startswith("on 30,000 images, 128 a step, adamw, rate 0.001") and "warm-up over the first 10 %" in facts["Trained"]
    assert "Linear: weight decay 0.001" in facts["Chosen on val"]
    assert facts["Made"] == "2026-11-02 10:00 UTC, commit abcdefabcdef with edits, 2 × Some CPU, python 3.11.9, torch 2.14.1"
    assert "encoder of seed 0" in facts["Files"] and facts["Made from"].startswith("data scenes ")
    assert "<dt>Made</dt><dd>CPU</dd>" in text[text.index('<h3 id="lonely"'):], "of an older training what is known"
    assert "Rows and columns are the same views" in section and "Rows and columns are the same views" not in text[:text.index('<h3 id="simclr"')]


def test_what_seeds_do_not_have_in_common_is_told_of_each():
    entry = {"date": "2026-11-02 10:00 UTC", "machine": "1 × H200", "versions": {}, "commit": "a" * 40}
    cost = {"0": {"made": entry}, "1": {"made": {**entry, "date": "2026-11-01 10:00 UTC", "commit": "b" * 40}, "processes": 2}}
    assert facts.made(cost) == ("2026-11-01 10:00 UTC to 2026-11-02 10:00 UTC, commit aaaaaaaaaaaa or commit bbbbbbbbbbbb, "
                                "1 × H200 or 1 × H200 in 2 processes")
    assert facts.made({}) == ""


def test_seeds_whose_curves_differ_are_told_apart(tmp_path):
    folders = {}
    for seed, falls in ((0, 1.0), (1, 0.0), (2, 1.0)):
        folders[seed] = tmp_path / str(seed)
        folders[seed].mkdir()
        rows = [{"step": i, "lr": 0.1, "loss": 3 - falls * min(i, 50) / 50} for i in range(100)]
        (folders[seed] / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert report.Row(None, "", folders, {}, {}).curve == (
        "seeds 0, 2: learns (loss 2.96 at first, 2 at last) · seed 1: hardly learns: the loss stays where it was (loss 3 at first, 3 at last)")


def test_a_tuned_recipe_is_told_as_long_as_it_is_the_runs(built, tmp_path):
    params, run = built[1], built[1].runs["tiny-simclr"]
    trial = {"lr": run.train.lr, "args": run.args, "key": "0", "knn": 61.9, "linear": 74.1}
    file = tmp_path / "data/results/tiny/tune.json"
    file.parent.mkdir(parents=True)
    for lr, told in ((run.train.lr, "trial 2 of 2 (kNN 61.9 %, Linear 74.1 %)"), (0.5, "")):
        runs = {run.name: {"recipe": {"lr": 1.0, "args": {}}, "trials": [trial, {**trial, "lr": lr}], "chosen": 2}}
        file.write_text(json.dumps({"runs": runs}))
        assert facts.tuned(params, run, tmp_path).endswith(told) and bool(facts.tuned(params, run, tmp_path)) == bool(told)


def test_rows_of_neighbours_are_in_line(built):
    """Columns are as wide as their pictures, all of which have the same rows; what shows one shows others at its scale."""
    text = built[2].read_text()
    section = text[text.index('<h3 id="simclr"'):text.index('<h3 id="lonely"')]
    columns = re.search(r"grid-template-columns: ([\d fr]+);", section)[1]
    pictures = re.findall(r'<img class="pixels" src="data:image/png;base64,([^"]+)" alt="(?:query|nearest)', section)
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for data in pictures]
    assert len({height for _, height in sizes}) == 1
    widths = [int(part.removesuffix("fr")) for part in columns.split()]
    assert [width / widths[0] for width in widths] == [width / sizes[0][0] for width, _ in sizes] and len(widths) == 4


def test_a_wide_figure_is_drawn_for_a_telephone_too():
    plot = figures.pyplot()
    drawing, axes = plot.subplots(1, 3, figsize=(15, 3), sharey=True)
    for axis in axes:
        axis.plot([0, 1], [3, 4], label="one")
        axis.set_title("A title that is far too long to stand on a single line of a telephone")
    axes[2].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes[2].annotate("aside", (1.02, 3.5), xycoords=("axes fraction", "data"))
    wide, narrow = str(figures.svg(drawing)).split('<div class="narrow-plot">')
    for part in (wide, narrow):
        known, named = (set(re.findall(pattern, part)) for pattern in (r'\bid="([^"]+)"', r"(?:url\(#|href=\"#)([^)\"]+)"))
        assert named and named <= known, "what clips and marks stands in the same figure"
        assert "#1f2933" not in part and "var(--ink)" in part, "colours are the page's"
    width, height = (float(re.search(rf'{side}="([\d.]+)pt"', narrow)[1]) for side in ("width", "height"))
    assert width == 4 * 72 and height > 3 * 3 * 72
    boxes = [axis.get_tightbbox() for axis in axes]
    assert all(upper.y0 > lower.y1 for upper, lower in zip(boxes, boxes[1:])), "below each other"
    assert all(box.x0 >= 0 and box.x1 <= 4 * drawing.dpi for box in boxes), "nothing is cut"
    assert all(axis.yaxis.get_tick_params()["labelleft"] for axis in axes)
    small = plot.figure(figsize=(3, 2))
    small.subplots()
    assert "narrow-plot" not in str(figures.svg(small))


def test_texts_of_a_method_are_tables(built):
    assert [[cell.strip() for cell in row] for row in Page(built[2].read_text()).tables[-1]] == [
        ["caption", "guessed"], ["a <b> boat", "car"]]
    assert "<h4>Hidden words</h4>" in built[2].read_text()


def test_without_any_result_there_is_a_page(built, tmp_path):
    root, params, _ = built
    (tmp_path / "data").mkdir()
    (tmp_path / "data/shards").symlink_to(root / "data/shards")
    text = report.build(params, tmp_path).read_text()
    assert text.count("No encoder yet") == 7


def test_built_again_it_is_the_same_and_reads_no_test_images(built, tmp_path):
    root, params, path = built
    for name in ("encoders", "results"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(root / "data" / name)
    (tmp_path / "data/shards/scenes").mkdir(parents=True)
    for file in (root / "data/shards/scenes").iterdir():
        if not file.name.startswith(("test", "train")):
            (tmp_path / "data/shards/scenes" / file.name).symlink_to(file)
    assert report.build(params, tmp_path).read_bytes() == path.read_bytes()


def test_precision_of_neighbours_counts_by_hand():
    labels = torch.tensor([0, 0, 1, 1, 2])
    angles = torch.tensor([0.0, 0.1, 0.25, 1.5, 1.6])
    row = report.Row(None, "", {}, {}, {}, features=torch.stack([angles.cos(), angles.sin()], 1))
    sample = type("S", (), {"labels": labels, "labelled": True, "images": torch.zeros(5, 3, 8, 8, dtype=torch.uint8)})
    expected, k = 0, 4                                   # five images: each has four neighbours, all the others
    for i in range(5):
        expected += sum(labels[j] == labels[i] for j in range(5) if j != i) / k
    assert pictures.neighbours(row, sample)[2] == pytest.approx(100 * expected / 5)


@pytest.mark.parametrize("seconds, text", [(4.21, "4.2 s"), (185, "3 min 05 s"), (3720, "1 h 02 min")])
def test_durations(seconds, text):
    assert report.duration(seconds) == text


@pytest.mark.parametrize("value, text", [(0, "0"), (999, "999"), (1_040_000, "1.04 M"), (2.3e9, "2.3 G")])
def test_quantities(value, text):
    assert report.quantity(value) == text


def test_what_is_compared_shares_a_panel():
    names = ["lr", "error_mean_colour", "loss", "error", "val_loss", "val_error", "nmi"]
    panels = {"loss": ["loss"], "error": ["error", "error_mean_colour"], "nmi": ["nmi"], "lr": ["lr"]}
    assert figures.panels(names) == panels and list(figures.panels(names)) == list(panels)


def test_a_run_is_above_its_floor_by_its_lead_over_it_seed_by_seed():
    def row(*accuracies):
        seeds = {str(s): {"accuracy": a, "low": a - 2, "high": a + 2} for s, a in enumerate(accuracies)}
        return report.Row(SimpleNamespace(method="simclr", labels=None), "", {}, {"linear": {"seeds": seeds}}, {})

    def verdict(ours, floor):
        run = row(*ours)
        run.floor = row(*floor)
        return run.verdict

    # Seeds differ by more than the run's lead of 2 to 3, which all of them have.
    assert verdict((22, 32, 43), (20, 30, 40)) == ("above floor", ["linear"])
    assert verdict((22, 32, 38), (20, 30, 40)) == ("not above floor", [])
    assert verdict((23,), (20, 30, 40)) == ("above floor", ["linear"])  # of the one shared seed 3 ± 2.8
    assert verdict((22.5,), (20, 30, 40)) == ("not above floor", [])


def test_few_labels_are_compared_with_the_same_labels_alone(built, tmp_path):
    """Floor and ceiling of all labels, and of others or of other choices by val, are not theirs."""
    root, params, _ = built
    few, forty = {"labels": 20, "val_labels": "same"}, {"labels": 0.4, "val_labels": "all"}
    wanted = {"random": ("random", 10, {}), "supervised": ("supervised", 90, {}),
              "simclr": ("simclr", 50, {"labels": 1.0}), "random-20": ("random", 5, few),
              "supervised-20": ("supervised", 40, few), "simclr-20": ("simclr", 60, few),
              "moco-20": ("moco", 35, few), "random-40": ("random", 20, forty), "simclr-40": ("simclr", 30, forty),
              "simclr-8": ("simclr", 30, {"labels": 20, "val_labels": "all"})}
    runs = {}
    for title, (method, value, more) in wanted.items():
        name = f"tiny-{title}"
        runs[name] = params.runs["tiny-random"].model_copy(update={"name": name, "method": method, **more})
        (tmp_path / config.results(name)).mkdir(parents=True)
        result = {"accuracy": value, "low": value - 2, "high": value + 2}
        (tmp_path / config.results(name) / "linear.json").write_text(json.dumps({**result, "seeds": {"0": result}}))
    params = params.model_copy(update={"runs": runs})
    rows = {row.title: row for row in report.collect(params, tmp_path)}
    bounds = {name: [other and other.title for other in (row.floor, row.ceiling)] for name, row in rows.items()}
    assert all(bounds[name] == ["random", "supervised"] for name in ("random", "supervised", "simclr"))
    twenty = [bounds[name] for name in bounds if name.endswith("-20")]
    assert len(twenty) == 4 and all(found == ["random-20", "supervised-20"] for found in twenty)
    assert bounds["simclr-40"] == ["random-40", None] and bounds["simclr-8"] == [None, None]
    verdicts = {name: row.verdict[0] for name, row in rows.items()}
    assert verdicts == {"random": "floor", "supervised": "ceiling", "simclr": "above floor", "random-20": "floor",
                        "supervised-20": "from scratch", "simclr-20": "above from scratch", "simclr-8": "no floor with these labels",
                        "moco-20": "not above from scratch", "random-40": "floor", "simclr-40": "above floor"}
    cards = {"scenes": tars.card_of(root / "data/shards/scenes")}
    said = [*report.notes(params, [*rows.values()], cards)]
    page = report.markdown(params, [*rows.values()], cards, [], said).splitlines()
    head, _, *table = [line.strip("| ").split(" | ") for line in page if line.startswith("| ")]
    labels = {row[0]: row[head.index("Labels")] for row in [*table]}
    assert labels["simclr"] == labels["random"] == "all" and labels["moco-20"] == "20, val as many"
    assert labels["simclr-40"] == "40 %, val all" and labels["simclr-8"] == "20, val all"
    assert "Linear, % of supervised" in head and any(note.startswith("Labels: how many") for note in said)
    assert panels.bound([rows["random"], rows["simclr"]]) == "ceiling"


def test_an_encoder_within_an_encoder_is_named_in_words():
    split = {"name": "split", "half": {"name": "convnet", "width": 8}}
    assert report.named(split) == "split (half convnet (width 8))"


def test_images_that_two_data_sets_share_are_shown_once():
    def sample(seed):
        return SimpleNamespace(images=torch.randint(256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(seed),
                                                          dtype=torch.uint8), labels=torch.arange(6) % 2, labelled=True, classes=["a", "b"])

    shown = list(pictures.galleries({"one": sample(0), "again": sample(0), "other": sample(1)}))
    assert [len(columns) for columns in shown] == [2, 0, 2]


OWN = '''"""How many features are above their mean: a protocol that only a test would want."""

title = "Own number"


def notes(report, rows, options):
    yield f"Own number: made with {options['grain']}."


def panel(report, rows, options):
    figure, axis = report.pyplot().subplots()
    axis.plot([row.results["own"]["accuracy"] for row in rows])
    axis.set_title("own figure")
    return report.Panel("own", "A panel of its own", "What it shows.", remarks=["How."], figure=report.svg(figure),
                        table=report.crossed(rows, "own", lambda content: content["parts"], "Part {}".format))
'''


@pytest.fixture(scope="module")
def extended(built, tmp_path_factory):
    """(root, page, table): with a protocol more, and two data sets more, on which a run is judged, too; test images of one of
    them stand in the training split of its own."""
    root, params, _ = built
    folder = tmp_path_factory.mktemp("extended")
    (folder / "data").mkdir()
    (folder / "data/encoders").symlink_to(root / "data/encoders")
    for name in ("results", "shards"):
        shutil.copytree(root / "data" / name, folder / "data" / name)
    judged, place = folder / config.results("tiny-simclr"), folder / "data/shards"
    result = {"accuracy": 12.3, "low": 11.1, "high": 13.5}
    seeds = {"0": {**result, "parts": {"a": result}}, "1": {**result, "parts": {"a": result}}}
    (judged / "own.json").write_text(json.dumps({**result, "seeds": seeds}))
    spec = {**params.datasets["scenes"].model_dump(exclude_none=True), "train": 8}
    for seed, name in ((1, "fresh"), (0, "elsewhere")):
        shards.write(name, {**spec, "seed": seed}, place / name, workers=1)
        (judged / name).mkdir()
        other = {"accuracy": 61.0, "low": 60.0, "high": 62.0, "seeds": {}}
        (judged / name / "linear.json").write_text(json.dumps(other))
    shutil.copy(tars.hashes_of(place / "scenes", "train"), tars.hashes_of(place / "elsewhere", "test"))
    section = pydantic.create_model("Own", grain=(int, 7))()
    both = {name: params.datasets["scenes"] for name in ("elsewhere", "fresh")}
    more = {"protocols": {**dict(params.protocols), "own": section}, "datasets": {**params.datasets, **both}}
    (folder / "evals").mkdir()
    (folder / "evals/own.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evals, "__path__", [*evals.__path__, str(folder / "evals")])
        page = report.build(params.model_copy(update=more), folder)
        patch.delitem(sys.modules, "selfsup.evals.own")
    return folder, page.read_text(), (folder / "data/report/tiny/table.md").read_text()


def test_a_new_protocol_brings_its_column_its_sentence_and_its_panel(extended):
    folder, text, table = extended
    head, *rows = Page(text).table
    assert [title.strip() for title in head].index("Own number %") == 5 and [row[5].strip() for row in rows if row[5].strip()] == ["12.3 11.1–13.5"]
    for word in ("Own number: made with 7.", "A panel of its own", "What it shows.", "own figure", "How.", 'href="#own"'):
        assert word in text
    for word in ("Own number %", "## A panel of its own", "| Run | Part a |", "| simclr | 12.3 [12.3, 12.3] |", "- How."):
        assert word in table
    assert "own: |-\n" in (folder / "data/results/tiny.yaml").read_text()


def test_no_protocol_is_named_here():
    """But in what users read of none in particular: a name in quotes, or an attribute of params."""
    for file in Path(report.__file__).parent.iterdir():
        if file.suffix in (".py", ".html"):
            assert not re.findall(rf"""["'.]({"|".join(evals.names())})\b""", file.read_text()), file


def test_protocols_do_not_import_matplotlib():
    """Judging does not wait for it."""
    code = f"import sys; from selfsup import evals; [evals.load(n) for n in {evals.names()}]; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "ssl")})


def test_dvc_prints_the_metrics_as_a_table(built, tmp_path):
    """12 runs and 2 protocols fit a screen; whatever stands for a number is what the report shows."""
    root, params, _ = built
    rows = [row for row in report.collect(params, root) if row.results] * 2
    (tmp_path / "tiny.yaml").write_text(report.metrics(params, rows))
    (tmp_path / "dvc.yaml").write_text("metrics: [tiny.yaml]\n")
    dvc = str(Path(sys.executable).parent / "dvc")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run([dvc, "init", "--quiet"], cwd=tmp_path, check=True)
    lines = subprocess.run([dvc, "metrics", "show"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == 13 and max(map(len, lines)) < 200
    assert lines[0].split() == ["Path", "Run", "finetune", "layerwise", "linear", "low_shot", "retrieval", "zero_shot"]
    assert lines[1].split()[:5] == ["tiny.yaml", "random", "20.0", "[17.0,", "23.0]"]


def test_the_metrics_file_is_written_and_says_where_it_was_judged(built):
    root, params, _ = built
    written = yaml.safe_load((root / "data/results/tiny.yaml").read_text())
    columns = {name: text.split("\n") for name, text in written.items()}
    assert list(columns) == ["Run", "linear", "finetune", "low_shot", "layerwise", "retrieval", "zero_shot"]
    assert dict(zip(columns["Run"], columns["linear"]))["moco"] == "-"
    assert dict(zip(columns["Run"], columns["linear"]))["simclr"] == "40.0 [36.0, 44.0]"


def test_encoders_judged_on_several_data_sets_have_a_table_of_them(built, extended):
    folder, text, table = extended
    (page,) = [rows for rows in Page(text).tables if any("elsewhere" in title for title in rows[0])]
    heads, row = [title.strip() for title in page[0]], next(row for row in page if row[0].strip() == "simclr")
    assert row[heads.index("elsewhere, Linear")].strip() == "61.0 60.0–62.0"
    assert row[heads.index("scenes, Linear")].strip() == "40.0 36.0–44.0"
    assert "elsewhere, Linear" in table and "61.0 [60.0, 62.0]" in table
    assert "Test images of elsewhere that stand in the training split of scenes, value by value: 20." in text
    assert text.count("value by value") == table.count("value by value") == 1
    assert "simclr on elsewhere" in (folder / "data/results/tiny.yaml").read_text()
    (ours,), (before,) = ([row for row in Page(page).table if row[0].strip() == "simclr"] for page in (text, built[2].read_text()))
    assert [cell for cell in ours if "12.3" not in cell] == before  # the verdict is of its own data


def test_what_stands_in_two_splits_is_a_note(built):
    root, params, _ = built
    rows, card = report.rows.collect(params, root), tars.card_of(root / "data/shards/scenes")
    assert not [note for note in report.notes(params, rows, {"scenes": card}) if "value by value" in note]
    twins = {"left_out": {"train": 3, "val": 1}, "between": {"test": {"train": 1200}}}
    told = [note for note in report.notes(params, rows, {"scenes": {**card, "twins": twins}}) if "value by value" in note]
    assert told == [
        "Left out of scenes: 3 samples, carved into train, of which the like stands in val or test, value by value.",
        "Left out of scenes: 1 sample, carved into val, of which the like stands in test, value by value.",
        "The test and train splits of scenes were given and share samples, value by value: 1,200 of test stand in train."]
