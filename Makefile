# `make repro` on a bare machine with Python 3.11, 3.12 or 3.13: environment, pipeline, where to look. `make help` lists the rest.
PYTHON ?= $(firstword $(foreach minor,11 12 13,$(shell command -v python3.$(minor))))
EXPERIMENT = $(shell sed -n 's/^experiment: //p' params.yaml)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH := ssl
# DVC asks for it, and the system knows no name for some users.
export LOGNAME ?= $(shell id -un 2>/dev/null || id -u)

define WHERE
@echo
@echo "Report:  $(CURDIR)/data/report/$(EXPERIMENT)/report.html"
@echo "MLflow:  make ui, which says the address"
endef

.PHONY: help repro parallel test bench ui track dag clean-scratch claims docs pictures experiment params tune
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 15

repro: .git .venv/installed ## install what is needed, run every stage that is not up to date, say where the report is
	dvc repro; status=$$?; python pipelines/experiment.py --save && exit $$status
	$(WHERE)

parallel: .git .venv/installed ## the same by Snakemake, independent stages at the same time
	snakemake --profile profiles/local; status=$$?; python pipelines/experiment.py --save && exit $$status
	$(WHERE)

test: .venv/installed ## all tests
	OMP_NUM_THREADS=1 python -m pytest -n logical --dist loadfile --no-loadscope-reorder  # a second thread only waits

bench: .venv/installed ## the benchmarks
	python -m bench

ui: .venv/installed ## compare runs in MLflow
	python pipelines/ui.py

track: .venv/installed ## rebuild MLflow's runs from the versioned files
	python pipelines/track.py

dag: .venv/installed ## draw the stages of the chosen experiment, and which are out of date
	python pipelines/dag.py

clean-scratch: .venv/installed ## free the disk of what is made again when needed: checkpoints of what is done, decoded images
	python pipelines/clean.py

docs: .venv/installed ## a site to read: docs/, and the catalogue of methods with what was found of each
	python pipelines/docs.py

claims: .venv/installed ## what the experiments on the lectures' claims have found
	python pipelines/claims.py

pictures: .venv/installed ## renew docs/report.png and docs/mlflow.png from the chosen experiment, by Chromium; LABELS=1: what labels buy, docs/NAME.png, alone
	python pipelines/pictures.py $(if $(LABELS),--labels)

experiment: .venv/installed ## make experiment E=cifar10: choose what params.yaml and dvc.lock hold, without running it
	python pipelines/experiment.py "$(E)"

tune: .git .venv/installed ## make tune E=quick: four trials of every run (or RUNS=...), judged on val; the best go into conf/
	python pipelines/experiment.py "$(or $(E),$(EXPERIMENT))"
	dvc repro shard
	python pipelines/tune.py $(RUNS) $(if $(JOBS),--jobs $(JOBS))
	python pipelines/experiment.py "$(or $(E),$(EXPERIMENT))"

params: .venv/installed ## after an edit of params.yaml by hand: renew what it derives from that
	python pipelines/experiment.py --params

.git:
	@test "$$(.venv/bin/dvc config core.no_scm 2>/dev/null)" = true || { echo "error: this is no git repository, which DVC wants \
	(a ZIP of one has no .git): clone it, or run \`git init && git add --all && git commit -m start\` here" >&2; exit 1; }

.venv/installed: requirements.txt constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: there is no python3.11, python3.12 or python3.13 here: install one, or say where it is, \
	make PYTHON=/a/python $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .  # the command selfsup
	touch $@
