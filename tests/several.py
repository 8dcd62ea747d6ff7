"""Scripts one after another in one process, whose start takes longer than they do here: `several.py "SCRIPT WORD …" "cd FOLDER" …`."""

import os
import runpy
import shlex
import sys

for line in sys.argv[1:]:
    script, *words = shlex.split(line)
    if script == "cd":
        os.chdir(*words)
    else:
        sys.argv = [script, *words]
        runpy.run_path(script, run_name="__main__")
