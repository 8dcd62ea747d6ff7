"""Scripts of pipelines/ one after another in one process, whose start takes longer than they do here:
`several.py "shard.py tiny" "cd FOLDER" "pretrain.py RUN"`."""

import os
import runpy
import shlex
import sys
from pathlib import Path

for line in sys.argv[1:]:
    script, *words = shlex.split(line)
    if script == "cd":
        os.chdir(*words)
    else:
        sys.argv = [script, *words]
        runpy.run_path(str(Path(__file__).parents[1] / "pipelines" / script), run_name="__main__")
