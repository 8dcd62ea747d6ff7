"""docs.py: a site of docs/ and of the catalogue of methods -> site/html."""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import claims, errors, site  # noqa: E402

PACKAGES = ("sphinx", "myst_parser", "furo")
SETTINGS = {"project": "selfsup", "html_title": "Self-supervised learning", "extensions": "myst_parser",
            "html_theme": "furo", "html_copy_source": "0", "html_extra_path": site.FIGURES, "html_show_sphinx": "0",
            "myst_heading_anchors": "3"}


@errors.main
def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="site", type=Path, help="the folder that is written (default: %(default)s)")
    args = parser.parse_args(words)
    if not all(map(importlib.util.find_spec, PACKAGES)):
        raise errors.UserError("the site is made by Sphinx: .venv/bin/python -m pip install --editable '.[docs]' "
                               "installs it")
    claims.build()  # its figures are shown
    site.write(".", args.out / "pages")
    build(args.out / "pages", args.out / "html")
    print(f"the site is at {args.out}/html/index.html")


def build(pages, out, *words):
    """HTML of the Markdown in `pages`, or what else `words` say to Sphinx. Raises UserError where a link leads nowhere,
    or it warns of something else."""
    settings = [word for key, value in SETTINGS.items() for word in ("--define", f"{key}={value}")]
    command = [sys.executable, "-m", "sphinx", "--isolated", "--quiet", "--fail-on-warning", *settings, *words, pages, out]
    if subprocess.run(command).returncode:
        raise errors.UserError("Sphinx did not make the site: what it says above names the page")


if __name__ == "__main__":
    main()
