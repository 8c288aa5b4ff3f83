# Two commands: `make up` runs everything on this machine, `make test` installs and checks everything.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: up test lint check coverage e2e-unprivileged bench system install install-dev wire locks clean
.DELETE_ON_ERROR:

up: install  ## install, then run CA, agent, policy and two demo services on this machine
	$(BIN)/livery up $(ARGS)

test: system lint check  ## install, then run everything CI runs

lint: install-dev  ## style, types, architecture, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python core/proto/generate.py --check

check: install-dev  ## every test, two at a time
	$(BIN)/pytest -n 2 --dist worksteal -q

coverage: install-dev  ## what the small tests cover, by line and branch
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist worksteal -q tests/unit tests/properties tests/integration
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

e2e-unprivileged: install-dev  ## the e2e tests once more, as a user without rights (when run as root)
	$(BIN)/python tests/e2e/unprivileged.py

bench: install-dev  ## write build/bench.json: figures as ratios, all from one run on this machine
	$(BIN)/python -m tests.bench $(ARGS)

system:  ## the few programs the tests need beside Python
	@bash tests/system.sh

install: $(VENV)/.run
install-dev: $(VENV)/.dev

$(VENV)/.run: requirements/run.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/run.lock
	$(PIP) install --require-hashes -r requirements/build.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	$(PIP) install --require-hashes -r requirements/dev.lock
	touch $@

wire: install-dev  ## generate the stubs from core/proto
	$(BIN)/python core/proto/generate.py

locks: install-dev  ## resolve again and write the locks
	$(BIN)/uv lock --upgrade
	$(BIN)/uv export -q --no-emit-project --no-header --no-dev -o requirements/run.lock >/dev/null
	$(BIN)/uv export -q --no-emit-project --no-header --only-group build -o requirements/build.lock >/dev/null
	$(BIN)/uv export -q --no-emit-project --no-header --all-groups -o requirements/dev.lock >/dev/null

clean:
	rm -rf $(VENV) build dist
