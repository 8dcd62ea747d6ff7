"""The pages on adding a part, done as they say: their files written, their commands run, in a clone where `tiny` was run."""

import re
import shutil

import pytest
import yaml

from tests.conftest import ROOT, Clone

PAGES = ["method", "augmentation", "protocol", "encoder", "source"]  # neighbours have runs in common
MINE = "conf/experiment/mine.yaml"
BLOCK = re.compile(r"^```(\w+)(?: (>> )?(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (ROOT / ".venv/installed").exists(), reason="make test installs it")]


@pytest.fixture(scope="module")
def reader(ran, tmp_path_factory):
    """The clone of one who does page after page, so that what two of them train is trained once."""
    folder = tmp_path_factory.mktemp("reader") / "clone"
    shutil.copytree(ran.folder, folder, symlinks=True)
    return Clone(folder)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_works_as_it_stands(reader, page):
    before = (reader / "dvc.lock").read_text()
    for language, more, name, text in BLOCK.findall((ROOT / f"docs/{page}.md").read_text()):
        if language == "sh":
            reader.run("bash", "-ec", text)
        elif name:
            (reader / name).parent.mkdir(parents=True, exist_ok=True)
            (reader / name).write_text((reader / name).read_text() + text if more else text)
    assert reader.stale() == set()
    table = (reader / "data/report/mine/table.md").read_text().partition("\n## ")[0]
    assert table.count("\n| ") == 2 + len(yaml.safe_load((reader / MINE).read_text())["runs"])  # two lines of heading
    # What was there before is as it was: nothing of `tiny` is out of date.
    reader.switch("tiny")
    assert (reader / "dvc.lock").read_text() == before
    assert not reader.stale() - {"report@tiny"}, "the report shows what protocols say of themselves, so it may be"


def test_every_page_is_named_in_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert all(f"docs/{page}.md" in text for page in PAGES)
