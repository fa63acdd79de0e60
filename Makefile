# One verb each. `make demo` shows the main job, `make test` proves it; both install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLANE ?= embedded
MINUTES ?= 10

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench soak unit plugin clean lock

help: ## list the verbs
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Spiderpool needs Python 3.11 or newer; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install: $(VENV)/.installed ## make .venv from the lock file, with the console scripts in .venv/bin

demo: install ## show the main job on a devcluster of three nodes (KEEP=1 leaves it running)
	@$(BIN)/python -m devcluster demo $(if $(KEEP),--keep) --plane $(PLANE)

lint: install ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## lint and every test (PLANE=envtest runs tests/plane on a real control plane)
	PLANE=$(PLANE) $(BIN)/python -X dev -m pytest -n auto --dist loadfile

bench: install ## speed, as ratios measured in one run
	$(BIN)/python -m tests.bench $(PLANE)

soak: install ## churn and random faults for MINUTES=n, then the books must balance; 1 when an address leaked (PLANE=envtest)
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --plane $(PLANE) $(if $(SEED),--seed $(SEED))

unit: install ## the tests without I/O only
	$(BIN)/python -m pytest tests/unit

plugin: install ## the CNI plugin with all it needs of Python, in build/plugin
	$(BIN)/python -m cni.install --bin-dir build/plugin

lock: ## resolve the dependencies of pyproject.toml again
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes --no-header pyproject.toml -o requirements.lock

clean: ## remove what the other verbs made
	rm -rf $(VENV) build .devcluster .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
