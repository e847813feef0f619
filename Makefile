# make demo    train, generate and write demo/report.html
# make test    lint, types, documentation and tests
# make docs    the documentation as a site, in site/
# All set up .venv first; a second call finds it there.
#
# Versions are pinned as they were tested, on Linux with Python 3.11; elsewhere `make test CONSTRAINTS=` takes the newest.

CONSTRAINTS ?= constraints.txt
EXTRAS := bench,dev,dinov2,docs,tensorboard
VENV := .venv
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := $(VENV)/Scripts
else
PYTHON ?= python3
BIN := $(VENV)/bin
endif
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint types docs unit clean

demo: $(INSTALLED)
	$(BIN)/smalti demo --out demo

test: lint types docs unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict --quiet

unit: $(INSTALLED)
	$(BIN)/python -m pytest -n 2

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@# Some systems split venv from Python; virtualenv, which pip can install, does the same.
	$(PYTHON) -m venv $(VENV) || ($(PYTHON) -m pip install --quiet --user virtualenv && $(PYTHON) -m virtualenv $(VENV))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS)) -e '.[$(EXTRAS)]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) demo site .mypy_cache .pytest_cache .ruff_cache .hypothesis
