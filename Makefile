# Two commands: `make up` runs everything on this machine, `make test` installs and checks everything.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: up test lint bench wire locks clean install
.DELETE_ON_ERROR:

$(VENV)/.run: requirements/run.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	touch $@

install: $(VENV)/.run

test: install lint
	$(BIN)/pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python core/proto/generate.py --check

wire: install
	$(BIN)/python core/proto/generate.py

locks:
	$(BIN)/uv lock --upgrade
	$(BIN)/uv export -q --no-emit-project --no-header --no-dev -o requirements/run.lock >/dev/null
	$(BIN)/uv export -q --no-emit-project --no-header --all-groups -o requirements/dev.lock >/dev/null

clean:
	rm -rf $(VENV) build dist
