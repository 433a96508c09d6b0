# `make help` lists the targets. Everything runs in .venv, which is made from constraints.txt when it is not there.
PYTHON ?= python3.11
RUN := .venv/bin/python
INSTALLED := .venv/.installed
.DEFAULT_GOAL := help
.PHONY: help demo test lint format table2 clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(INSTALLED) ## make .venv with the pinned dependencies

demo: $(INSTALLED) ## compare baseline, m1, m2, m3 on drawn faces: minutes on two cores
	$(RUN) -m fer_voting.train -m experiment=demo split=baseline,m1,m2,m3

test: $(INSTALLED) ## run the whole test suite
	$(RUN) -m pytest

lint: $(INSTALLED) ## check format, style and types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy fer_voting experiments

format: $(INSTALLED) ## format the code
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

table2: $(INSTALLED) ## measure the paper's Table 2: memory and arithmetic of each split
	$(RUN) -m experiments.table2

clean: ## remove what tools leave behind; outputs/ and .venv/ stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
