# Needs only make and Python 3.11 or newer; everything else goes into .venv, from a lock with hashes.
# Another Python:  make PYTHON=python3.13 test

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak check format bench jaeger conformance lock clean
.DELETE_ON_ERROR:

# The first Python on the path that is new enough; if there is none, python3 itself gets to say so.
PYTHON ?= $(or $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done),python3)
VENV := .venv
MCP1 := .venv-mcp1
READY := $(VENV)/whygate-set-up
READY_MCP1 := $(MCP1)/whygate-set-up

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

$(READY): requirements/dev.txt requirements/set_up.py pyproject.toml
	@$(PYTHON) requirements/set_up.py $(VENV) requirements/dev.txt --editable

$(READY_MCP1): requirements/mcp1.txt requirements/set_up.py
	@$(PYTHON) requirements/set_up.py $(MCP1) requirements/mcp1.txt

setup: $(READY) ## Lay the virtual environment (the others do it when needed)

demo: $(READY) ## See it at work: gateway, agent, tools and a few decisions, on this machine
	@$(VENV)/bin/whygate demo

test: $(READY) $(READY_MCP1) ## Run every test; T="-k name" picks some
	@$(VENV)/bin/python -m pytest $(T)

soak: $(READY) ## What takes too long for each run: a million inputs, 200 kills, the API by its document; S="--inputs N" changes it
	@$(VENV)/bin/python -m tests.soak $(S)

check: $(READY) ## Lint, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(READY) ## Put the code into the house's form
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(READY) ## Measure the gateway on this machine
	@$(VENV)/bin/python benchmarks/bench.py

jaeger: ## Build the pinned Jaeger into the cache, for the tests that talk to a real one (needs Go)
	@tests/servers/jaeger/build.sh

conformance: ## Fetch MCP's conformance suite, and npm's MCP servers, into the cache, for the tests with them (needs npm)
	@$(PYTHON) tests/servers/npm.py

lock: $(READY) ## Pin the newest allowed versions of everything, with hashes
	$(LOCK) --extra demo --group dev pyproject.toml --output-file requirements/dev.txt
	$(LOCK) requirements/mcp1.in --output-file requirements/mcp1.txt

# Universal, so that one file serves every platform and Python; and no address of where the packages came from.
LOCK = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-build-options

clean: ## Remove what was made here (not the cache with Jaeger)
	rm -rf $(VENV) $(MCP1) $(VENV).lock $(MCP1).lock .pytest_cache .mypy_cache .ruff_cache .hypothesis
