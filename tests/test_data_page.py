"""docs/data.md against the code: each of its layouts is made, sharded, and compared with what the page says of it."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml

from selfsup import config, shards, sources
from selfsup.config import compose
from selfsup.data import images, sound
from selfsup.errors import UserError
from tests.conftest import ROOT
from tests.data.making import encoded, folder_spec, picture, write_tar

BLOCKS = re.findall(r"^```layout *([^\n]*)\n(.*?)^```$", (ROOT / "docs/data.md").read_text(), re.MULTILINE | re.DOTALL)
VERDICTS = ("carves ", "reads ", "refuses ", "skips ")


class Maker:
    """Writes a layout's lines; every picture is another one."""

    def __init__(self, root):
        self.root, self.number = root, 0
        root.mkdir()
        (root.parent / "elsewhere").mkdir()

    def png(self):
        return self.content(".png")

    def line(self, text):
        name, _, target = text.partition(" -> ")
        if target:
            (self.root / name).symlink_to(target)
        elif ": " in text:
            name, _, lines = text.partition(": ")
            (self.root / name).write_text(lines.replace(", ", "\n"))
        elif " = " in text:
            name, _, same = text.partition(" = ")
            for path, like in zip(self.names(name), sorted((self.root / same).iterdir()), strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(like.read_bytes())
        elif ".tar/" in text:
            self.tar(*text.split(".tar/"))
        elif ".parquet/" in text:
            self.parquet(*text.split("/{"))
        else:
            for path in self.names(text):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.content(path.suffix))

    def content(self, suffix):
        self.number += 1
        if suffix == ".npy":
            return images.npy(np.random.default_rng(self.number).normal(size=(30, 3)))
        if suffix == ".wav":
            return sound.wav(np.full((1, 2000), 100 * self.number, np.int16), 8000)
        return encoded(picture(self.number)) if suffix == ".png" else b"words, number %d" % self.number

    def names(self, pattern):
        count = re.search(r"\{(\d+)\}", pattern)
        if not count:
            return [self.root / pattern]
        return [self.root / pattern.replace(count[0], f"{i:02d}") for i in range(int(count[1]))]

    def tar(self, name, members):
        count, _, endings = members.partition(".")
        count, path = int(count.strip("{}") or 0), self.root / f"{name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        make = {"png": lambda i: self.png(), "cls": lambda i: b"%d" % (i % 2), "txt": lambda i: b"words",
                "json": lambda i: json.dumps({"label": i % 2}).encode()}
        write_tar(path, [(f"{name.replace('/', '-')}{i}", {end: make[end](i) for end in endings.split("+")})
                         for i in range(count)])

    def parquet(self, name, count):
        import pyarrow as pa
        import pyarrow.parquet as pq

        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        rows = range(int(count.strip("}")))
        table = pa.table({"image": [self.png() for _ in rows], "label": [i % 2 for i in rows]})
        pq.write_table(table, self.root / name)


def becomes(card):
    """In the page's words."""
    verdict = "reads " + ", ".join(f"{split} {card['counts'][split]}" for split in sources.SPLITS)
    words = [f"classes {', '.join(card['classes'])}" if card["classes"] else "no labels"]
    return verdict, "; ".join(words + ["captions"] * ("caption" in card["columns"]))


@pytest.mark.parametrize("options, text", BLOCKS, ids=[str(i) for i in range(len(BLOCKS))])
def test_a_layout_is_read_as_the_page_says(tmp_path, capsys, options, text):
    lines = [line for line in text.splitlines() if not line.startswith(VERDICTS)]
    (verdict, *skips) = [line for line in text.splitlines() if line.startswith(VERDICTS)]
    make = Maker(tmp_path / "raw")
    for line in lines:
        make.line(line)
    given = dict(option.split("=") for option in options.split() if "=" in option)
    source = next((option for option in options.split() if "=" not in option), "folder")
    given |= {"urls": given.get("urls", "*.tar")} if source == "webdataset" else {}
    given = {key: int(value) if value.isdigit() else value == "true" or value for key, value in given.items()}
    spec = folder_spec(make.root, source=source, **given)
    if verdict.startswith("refuses "):
        with pytest.raises(UserError, match=re.escape(verdict.removeprefix("refuses "))):
            shards.write("toy", spec, tmp_path / "out", workers=1)
        return
    card = shards.write("toy", spec, tmp_path / "out", workers=1)
    read, rest = becomes(card)
    if verdict.startswith("carves "):
        assert f"carves {sum(card['counts'].values())}; {rest}" == verdict and min(card["counts"].values()) > 0
    else:
        assert f"{read}; {rest}" == verdict
    said = [line.removeprefix("toy: ").replace("skipped: ", "skips ") for line in capsys.readouterr().err.splitlines()
            if line.startswith("toy: skipped: ")]
    assert said == skips


def test_the_page_names_the_words_and_endings_there_are():
    text = (ROOT / "docs/data.md").read_text()
    assert all(f"`{word}`" in text for word in sources.ALIASES) and all(f"`{name}`" in text for name in sources.NAMES)
    assert f"**Endings**: {', '.join(images.EXTENSIONS)}, in either case" in text
    assert len(BLOCKS) > 20 and "docs/data.md" in (ROOT / "README.md").read_text()


def test_every_source_has_an_example_that_params_take(tmp_path):
    """The page's experiment with the line of every source, and a run of each, composed as DVC does it."""
    page = (ROOT / "docs/data.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `(\w+)` \| `(\{.*?\})`.*\| `(\{.*\})` \|$", page, re.MULTILINE)
    assert len(rows) > 10 and {name for name, _, _ in rows} <= set(sources.names())  # one's own need not be there
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    own = yaml.safe_load(example)
    for name, line, run in rows:
        spec = yaml.safe_load(line)
        assert spec["source"] == name
        own["datasets"][f"my_{name}"] = spec
        own["runs"][f"mine-of-{name}"] = {"data": f"my_{name}", "seeds": [0], **yaml.safe_load(run)}
    (tmp_path / "conf/experiment/mine.yaml").write_text("# @package _global_\n" + yaml.safe_dump(own, sort_keys=False))
    compose.write(tmp_path / "params.yaml", tmp_path / "conf", "experiment=mine")
    params = config.load(tmp_path / "params.yaml")
    config.check(params)
    assert len(params.runs) == len(rows) + 3
