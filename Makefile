# Every command a developer or CI needs. `make` alone lists them.

PYTHON ?= python3
VENV   := .venv
PROTO  := .venv-proto
BIN    := $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check -q

# Tests find weights and images that are not in the repository here; where the folder is absent
# those tests are skipped, visibly.
export PRELABEL_TEST_DATA ?= ../shared/data
# Whole test files go to one process each: two cores, and modules share servers and models.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets.
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "prelabel needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	@touch $@

$(VENV)/demo-installed: $(VENV)/created pyproject.toml
	$(PIP) install -e '.[demo]'
	@touch $@

$(VENV)/dev-installed: $(VENV)/created pyproject.toml
	$(PIP) install -e '.[demo,eval]' --group dev
	@touch $@

$(PROTO)/installed: pyproject.toml
	$(PYTHON) -m venv $(PROTO)
	$(PROTO)/bin/python -m pip --disable-pip-version-check -q install --upgrade "pip>=25.1"
	$(PROTO)/bin/python -m pip --disable-pip-version-check -q install --group proto
	@touch $@

.PHONY: demo
demo: $(VENV)/demo-installed ## The two-minute tour: a real server, real pictures, no network.
	$(BIN)/prelabel demo

.PHONY: test
test: $(VENV)/dev-installed ## The default tests.
	$(PYTEST)

.PHONY: test-slow
test-slow: $(VENV)/dev-installed ## The marked tests that take minutes.
	$(BIN)/python -m pytest -m slow

# In an environment of its own: PyTorch is larger than everything else together.
$(VENV)-export/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-export
	$(VENV)-export/bin/python -m pip --disable-pip-version-check -q install --upgrade "pip>=25.1"
	$(VENV)-export/bin/python -m pip --disable-pip-version-check -q install -e '.[cpu,export]' \
	  --group test
	@touch $@

.PHONY: test-export
test-export: $(VENV)-export/installed ## Exported SAM graphs against PyTorch.
	$(VENV)-export/bin/python -m pytest -m slow tests/models/export

.PHONY: lint
lint: $(VENV)/dev-installed ## Style, types, import rules, contract.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/buf format --diff --exit-code proto

.PHONY: format
format: $(VENV)/dev-installed ## Rewrite the code in the project's style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write proto

.PHONY: generate
generate: $(PROTO)/installed ## Generate the stubs from the contract.
	PATH="$(CURDIR)/$(PROTO)/bin:$$PATH" $(PROTO)/bin/python proto/generate.py

.PHONY: check-generated
check-generated: $(PROTO)/installed ## Fail if the committed stubs differ from fresh ones.
	PATH="$(CURDIR)/$(PROTO)/bin:$$PATH" $(PROTO)/bin/python proto/generate.py --check

.PHONY: check-wheel
check-wheel: $(VENV)/dev-installed ## Build the wheel, install it into clean environments, use it.
	$(BIN)/python tests/check_wheel.py

.PHONY: check
check: lint check-generated test check-wheel ## Everything that must be green before a change lands.

.PHONY: clean
clean: ## Remove environments and build products.
	rm -rf $(VENV) $(VENV)-export $(PROTO) dist build prelabel-demo .mypy_cache .ruff_cache .pytest_cache \
	  .import_linter_cache .hypothesis
