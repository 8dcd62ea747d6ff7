"""The place to read: links of what is in the repository, the pages that are made of it, and the site's own strict build."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from selfsup import config, methods, site
from selfsup.errors import UserError
from tests.test_bad_inputs import script

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|<a href=\"([^\"]+)\"")


def anchors(text):
    """Those that a page's headings have on GitHub and on the site."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(file):
    """The links of a Markdown file that lead nowhere."""
    text = file.read_text()
    for target in (a or b for a, b in LINK.findall(CODE.sub("", text))):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = file if not path else Path(os.path.normpath(file.parent / path))
        if not there.exists() or anchor and there.suffix == ".md" and anchor not in anchors(there.read_text()):
            yield target


@pytest.mark.parametrize("file", [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))], ids=lambda file: file.name)
def test_every_link_leads_somewhere(file):
    assert not [*broken(file)]


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# A heading, of `two` words\n")
    links = "[a](other.md#a-heading-of-two-words) [b](other.md#none) [c](none.md) `[d](none)` [e](https://x.org)\n"
    (tmp_path / "page.md").write_text(links)
    assert [*broken(tmp_path / "page.md")] == ["other.md#none", "none.md"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with a picture of one training, and a page of the claims."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("README.md", "CONTRIBUTING.md", "docs", "conf"):
        (root / name).symlink_to(ROOT / name)
    (root / "data/report").mkdir(parents=True)
    (root / "data/results").symlink_to(ROOT / "data/results")
    (root / "data/report/claims.html").write_text("<p>figures")
    drawn = root / config.encoders("quick-simclr") / "0/pictures/affinity.png"
    drawn.parent.mkdir(parents=True)
    Image.new("L", (256, 256), "grey").save(drawn)
    site.write(root, root / "site/pages")
    return root / "site/pages"


def test_every_method_has_a_page_and_every_link_leads_somewhere(checkout):
    assert {file.stem for file in (checkout / "methods").glob("*.md")} == {*methods.names(), "index"}
    wrong = {str(file.relative_to(checkout)): found for file in checkout.rglob("*.md") if (found := [*broken(file)])}
    assert not wrong
    index = (checkout / "index.md").read_text()
    assert all(f"methods/{name}.md)" in index for name in methods.names()), "README's table leads to each"


def test_a_methods_page_has_paper_formula_arguments_picture_and_figures(checkout):
    page = (checkout / "methods/simclr.md").read_text()
    assert "<https://arxiv.org/abs/2002.05709>" in page and "| `temperature` | `0.5` | number from 0.001 to 1,000 |" in page
    assert "`layers`: of the projector" in page
    with Image.open(checkout / "methods/simclr-affinity.png") as image:
        assert image.size == (512, 512) and "![affinity](simclr-affinity.png)" in page
    assert "**Affinity.** Rows and columns are the same views" in page and "**Views.**" not in page, "it has not been drawn"
    ours = config.results("quick-simclr")
    assert re.search(r"\| \[quick\]\(\.\./quick\.md\) \| simclr \| kNN [\d.]+ \[.*<br>Linear .* \| kNN ", page) and (ROOT / ours).exists()
    assert '<a href="../claims-figures.html#batch">batch</a>' in page and "[augmentation](" not in page, "that page is on adding one"
    assert "\n    ‖φ(D∘x)" in (checkout / "methods/counting.md").read_text()


def test_blocks_of_code_are_in_the_sites_words(checkout):
    assert "```{code-block} python\n:caption: ssl/selfsup/methods/nt_xent.py\n" in (checkout / "method.md").read_text()
    assert "```layout" not in (checkout / "data.md").read_text()


@pytest.mark.skipif(importlib.util.find_spec("myst_parser") is None, reason="the extra docs")
def test_the_site_is_built_without_a_warning(checkout):
    sys.path.append(str(ROOT / "pipelines"))
    try:
        import docs
    finally:
        sys.path.remove(str(ROOT / "pipelines"))
    docs.build(checkout, checkout.with_name("html"), "--builder", "dummy")
    (checkout / "scale.md").write_text("# Scale\n\n[nowhere](none.md)\n")
    with pytest.raises(UserError, match="did not make the site"):
        docs.build(checkout, checkout.with_name("html"), "--builder", "dummy")


def test_without_sphinx_it_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", sys.argv)
    assert script("docs") and "the site is made by Sphinx" in capsys.readouterr().err
