"""`make pictures`: a PNG of the report by the Chromium of this machine, and one sentence where there is none."""

import importlib.util
import shutil
from pathlib import Path

import pytest
from PIL import Image

from selfsup.errors import UserError

FILE = Path(__file__).parents[1] / "pipelines/pictures.py"
SPEC = importlib.util.spec_from_file_location("pictures_command", FILE)
command = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(command)
PAGE = """<!doctype html><body style="margin: 0"><p style="height: 900px; margin: 0">above</p>
<h2 id="results" style="background: red; height: 50px; margin: 0">Results</h2>
<table style="border-spacing: 0"><tr><td style="height: 100px; padding: 0">a row</table>
<ul class="notes"><li>a note</li></ul><svg style="display: block" width="500" height="200"></svg><p>below</p>"""
FIGURE = """<h2 id="labels" style="margin: 0; height: 30px">What labels buy</h2><p style="margin: 0">words</p>
<svg style="display: block; background: blue" width="500" height="100"></svg>"""


@pytest.mark.skipif(not any(map(shutil.which, command.PROGRAMS)), reason="no Chromium on PATH")
def test_the_report_is_photographed_from_its_table_to_its_first_figure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with command.browser() as page:
        with pytest.raises(UserError, match="no such file: data/report/some/report.html"):
            command.report(page, tmp_path / "out.png", "some")
        Path("data/report/some").mkdir(parents=True)
        Path("data/report/some/report.html").write_text(PAGE)
        command.report(page, tmp_path / "out.png", "some")
        with pytest.raises(UserError, match="has no such figure"):
            command.report(page, tmp_path / "labels.png", "some", command.LABELS)
        Path("data/report/some/report.html").write_text(PAGE + FIGURE)
        command.report(page, tmp_path / "labels.png", "some", command.LABELS)
    figure = Image.open(tmp_path / "labels.png").convert("RGB")
    assert (figure.width, figure.height) == (540, 138)   # the heading and the figure, without the words between them
    assert figure.getpixel((400, 100)) == (0, 0, 255)
    image = Image.open(tmp_path / "out.png").convert("RGB")
    assert image.width == command.SIZE["report"][0]
    assert 345 <= image.height <= 350  # without the notes
    assert image.getpixel((600, 20)) == (255, 0, 0)


def test_without_chromium_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="Chromium, and none of chromium, .* is on PATH"), command.browser():
        pass
