# `make demo` and `make test` need only make, Python >= 3.11 and its venv module; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUBS := $(wildcard proto/tessera/v1/*.proto proto/tessera/compat/*.proto)

.PHONY: demo test check soak bench bench-micro bench-transport coverage proto clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/.train ## two parties train, publish and serve one model (KEEP=1 leaves the nodes running)
	$(BIN)/python docs/examples/breast_cancer/demo.py $(if $(KEEP),--keep)

# Hundreds of processes start in the tests: each reads what the first has compiled, also where the environment forbids it.
test soak: export PYTHONDONTWRITEBYTECODE =

test: $(VENV)/.dev ## everything but the long tests, with coverage
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile --no-loadscope-reorder \
	    --cov --cov-report=term:skip-covered --cov-fail-under=90

check: $(VENV)/.dev ## style, types, import rules, budgets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/architecture

soak: $(VENV)/.dev ## the long tests
	$(BIN)/python -m pytest -m soak --timeout 1800

bench: $(VENV)/.dev ## whole parties under load, into bench/results/scenarios.json and docs/performance.md
	$(BIN)/python -m bench.scenarios --transport native --transport grpcio

bench-micro: $(VENV)/.dev ## costs of single steps of the request path, into bench/results/micro.json
	$(BIN)/python -m bench.micro

bench-transport: $(VENV)/.dev ## gRPC servers side by side in one run, into bench/results/transport.json
	$(BIN)/python -m bench.transport

proto: $(VENV)/.dev ## regenerate the stubs
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=proto --grpc_python_out=proto --pyi_out=proto $(STUBS)

clean: ## remove the virtual environment and what runs leave behind
	rm -rf $(VENV) demo-run .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Tessera needs Python 3.11 or newer; say which with make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Each environment is the extra of its name, installed in place.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
