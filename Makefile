# make demo    train, generate and write demo/report.html
# make test    lint, types and tests
# Both set up .venv first; a second call finds it there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint types unit clean

demo: $(INSTALLED)
	$(BIN)/smalti demo --out demo

test: lint types unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

unit: $(INSTALLED)
	$(BIN)/python -m pytest -n 2

$(INSTALLED): pyproject.toml constraints.txt
	@# Some systems split venv from Python; virtualenv, which pip can install, does the same.
	$(PYTHON) -m venv $(VENV) || ($(PYTHON) -m pip install --quiet --user virtualenv && $(PYTHON) -m virtualenv $(VENV))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench,dev,dinov2,tensorboard]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
