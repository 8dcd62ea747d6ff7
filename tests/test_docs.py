"""The pages on adding a part, done as they say: their files written, their commands run, in a clone where `tiny` was run."""

import re

import pytest

from tests.conftest import ROOT

PAGES = ["method", "encoder", "source", "protocol", "augmentation"]
BLOCK = re.compile(r"^```(\w+)(?: (>> )?(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (ROOT / ".venv/installed").exists(), reason="make test installs it")]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_works_as_it_stands(clone, page):
    before = (clone / "dvc.lock").read_text()
    for language, more, name, text in BLOCK.findall((ROOT / f"docs/{page}.md").read_text()):
        if language == "sh":
            clone.run("bash", "-ec", text)
        elif name:
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_text((clone / name).read_text() + text if more else text)
    assert clone.stale() == set()
    table = (clone / "data/report/mine/table.md").read_text()
    assert table.count("\n| ") >= 3  # a heading, the floor and the new part's row
    # What was there before is as it was: nothing of `tiny` is out of date.
    clone.switch("tiny")
    assert (clone / "dvc.lock").read_text() == before
    assert not clone.stale() - {"report@tiny"}, "the report shows what protocols say of themselves, so it may be"


def test_every_page_is_named_in_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert all(f"docs/{page}.md" in text for page in PAGES)
