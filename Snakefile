# The stages of dvc.yaml that are not up to date, in parallel or on a cluster: `make parallel`, or
#   snakemake --cores 2        snakemake --profile profiles/slurm        snakemake -n --cores 1  (only lists them)
# DVC says which stages there are, how they depend on each other and which are stale; Snakemake decides when each runs.
# A job is `dvc repro` of one stage, so afterwards dvc.lock, cache and `dvc status` are as if DVC had run them all.
import fcntl
import os
import re
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from snakemake.exceptions import WorkflowError

if workflow.is_main_process:
    # One at a time in a working tree, by a lock that ends with its holder. Snakemake's own, and its marks of incomplete
    # files, outlive a kill or a power cut: whoever has this one finds only such.
    Path(".snakemake").mkdir(exist_ok=True)
    sole = open(".snakemake/sole", "w")
    try:
        fcntl.flock(sole, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkflowError("another Snakemake runs in this working tree: wait for it, or stop it")
    except OSError:  # a disk without locks
        pass
    for left in [*Path(".snakemake/locks").glob("*.lock"), *Path(".snakemake/incomplete").rglob("*")]:
        if left.is_file():
            left.unlink()

try:
    repo = Repo()
    graph = repo.index.graph
    needs = {
        stage.addressing: [below.addressing for below in graph.successors(stage) if below.cmd]
        for stage in graph
        if stage.cmd  # a .dvc file has none
    }
    changed = repo.status() if workflow.is_main_process else {}
    repo.close()
except DvcException as error:
    raise WorkflowError(f"DVC cannot say which stages there are: {error}")


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
