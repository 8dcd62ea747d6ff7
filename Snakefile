# The stages of dvc.yaml that are not up to date, in parallel or on a cluster: `make parallel`, or
#   snakemake --cores 2        snakemake --profile profiles/slurm        snakemake -n --cores 1  (only lists them)
# DVC says which stages there are, how they depend on each other and which are stale; Snakemake decides when each runs.
# A job is `dvc repro` of one stage, so afterwards dvc.lock, cache and `dvc status` are as if DVC had run them all.
import os
import re
from pathlib import Path

from dvc.repo import Repo

with Repo() as repo:
    graph = repo.index.graph
    needs = {
        stage.addressing: [below.addressing for below in graph.successors(stage) if below.cmd]
        for stage in graph
        if stage.cmd  # a .dvc file has none
    }
    changed = repo.status() if workflow.is_main_process else {}


def stamp(stage):
    return f".snakemake/stages/{stage}"


def stale(stage):
    return stage in changed or any(stale(below) for below in needs[stage])


if workflow.is_main_process:
    # A stale stage has no stamp; all others have one of the same age, so that none looks older than what it needs.
    Path(".snakemake/stages").mkdir(parents=True, exist_ok=True)
    for stage in needs:
        if stale(stage):
            Path(stamp(stage)).unlink(missing_ok=True)
        else:
            Path(stamp(stage)).touch()
            os.utime(stamp(stage), (0, 0))


rule all:
    input:
        [stamp(stage) for stage in needs],


titles = {}
for stage in sorted(needs):  # in letters that Snakemake takes, in which the runs a-b and a_b would have one name
    titles[stage] = re.sub(r"\W", "_", stage)
    while list(titles.values()).count(titles[stage]) > 1:
        titles[stage] += "_"

for stage, below in needs.items():

    rule:
        name:
            titles[stage]
        input:
            [stamp(name) for name in below],
        output:
            touch(stamp(stage)),
        params:
            stage=stage,
        shell:
            "dvc --wait-for-lock repro --quiet --single-item {params.stage:q}"
