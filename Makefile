# `make demo` and `make test` need only make, Python >= 3.11 and its venv module; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUBS := $(wildcard proto/tessera/v1/*.proto proto/tessera/compat/*.proto)
COMPILE := HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(CURDIR)/$(BIN)/python -m hatchling build --target wheel --hooks-only
COPIED := apps bench docs loaders proto serving tests training hatch_build.py pyproject.toml README.md
TRANSPORT_TESTS := tests/unit/serving/transport tests/contract tests/integration/hostile tests/integration/test_fuzzing.py \
    tests/integration/test_http2_conformance.py tests/integration/test_http2_cuts.py tests/integration/test_native_bounds.py \
    tests/integration/test_native_transport.py tests/integration/test_other_clients.py tests/integration/test_intake.py \
    tests/integration/test_servicer_threads.py tests/e2e/test_two_parties.py

.PHONY: demo test test-compiled check soak bench bench-compiled bench-micro bench-transport compiled uncompiled proto clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/.train ## two parties train, publish and serve one model (KEEP=1 leaves the nodes running)
	$(BIN)/python docs/examples/breast_cancer/demo.py $(if $(KEEP),--keep)

# Hundreds of processes start in the tests: each reads what the first has compiled, also where the environment forbids it.
test soak: export PYTHONDONTWRITEBYTECODE =

# Three at once, on two cores: a sixth of their time tests wait for processes and clocks.
test: uncompiled $(VENV)/.dev $(VENV)/kserve/.done ## everything but the long tests, with coverage
	$(BIN)/python -m pytest -m "not soak" -n 3 --dist loadfile --no-loadscope-reorder \
	    --cov --cov-report=term:skip-covered --cov-fail-under=90

# In a copy: what is compiled beside its source is what Python takes.
test-compiled: $(VENV)/.dev ## the transport's tests on its compiled form (needs gcc and Python's headers)
	rm -rf build/compiled
	mkdir -p build/compiled
	cp -R $(COPIED) build/compiled
	cd build/compiled && $(COMPILE) && PYTHONPATH=$(CURDIR)/build/compiled:$(CURDIR)/build/compiled/proto \
	    $(CURDIR)/$(BIN)/python -m pytest -q -m "not soak" -n 2 --dist loadfile $(TRANSPORT_TESTS)

check: $(VENV)/.dev ## style, types, import rules, budgets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/architecture

soak: $(VENV)/.dev $(VENV)/kserve/.done ## the long tests
	$(BIN)/python -m pytest -m soak --timeout 1800

compiled: $(VENV)/.dev ## compile the transport beside its source (needs gcc and Python's headers)
	$(COMPILE)

uncompiled: ## remove what `make compiled` made
	@find serving -name '*.so' -delete; rm -f *.so

bench: uncompiled $(VENV)/.dev ## whole parties under load, into bench/results/scenarios.json and docs/performance.md
	$(BIN)/python -m bench.scenarios --transport native --transport grpcio

bench-compiled: compiled ## the same with the native transport compiled
	$(BIN)/python -m bench.scenarios
	@$(MAKE) --no-print-directory uncompiled

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

# What kserve's client pins does not go with ours: it is tested from an environment of its own.
$(VENV)/kserve/.done: tests/e2e/kserve.txt | $(BIN)/python
	$(BIN)/python -m venv --clear --without-pip $(@D)
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check --requirement $<
	@touch $@
