# What there is to type. The first two set everything up: python3, a C compiler and make are all they need.
#   make run    the main job: the bundled network on hwconfigs/npu.yaml, results in out/
#   make test   the fast tier of the tests
#   make sanitize   tests of the engine, built with the compiler's checks of memory and undefined behaviour
#   make test-full, make bench, make docs, make lint, make format, make clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt
SOURCES := setup.py pyproject.toml constraints.txt $(wildcard native/*.py native/include/* native/src/*)

.PHONY: run test test-full sanitize bench docs lint format clean

run: $(VENV)/run.stamp
	$(BIN)/python -m simulator --hw hwconfigs/npu.yaml

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n auto --dist loadfile

test-full: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m "full or not full"

# A second build of the packages, which the tests find before the first. What Python leaks is not looked for,
# and products of a million terms take too long unoptimised.
SANITIZED := build/sanitized
sanitize: $(VENV)/test.stamp
	ULPSIM_SANITIZE=address,undefined $(BIN)/python setup.py --quiet build --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 ULPSIM_SANITIZE=address,undefined \
	    $(BIN)/pytest -q -n auto -o 'pythonpath=$(SANITIZED)/lib .' -p no:cacheprovider -k 'not a_million' \
	    tests/contracts/test_accumulators.py tests/contracts/test_robustness.py \
	    tests/native/test_kernels.py tests/native/test_places.py

bench: $(VENV)/bench.stamp
	$(BIN)/python -m pytest tests/bench --benchmark-enable --benchmark-only --benchmark-disable-gc \
		--benchmark-json=bench.json -q

docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build site bench.json *.egg-info native/*.so native/_engine.c out .pytest_cache .ruff_cache .mypy_cache

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

# torch goes first and pinned: an unpinned one may pull gigabytes.
$(VENV)/run.stamp: $(VENV)/bin/pip $(SOURCES)
	$(PIP) torch
	$(PIP) --editable '.[report,explore]'
	touch $@

# The test extra contains what `make run` needs, so that one build serves both.
$(VENV)/test.stamp: $(VENV)/bin/pip $(SOURCES)
	$(PIP) torch
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/run.stamp

$(VENV)/bench.stamp: $(VENV)/test.stamp
	$(PIP) mmaemu
	touch $@

$(VENV)/docs.stamp: $(VENV)/test.stamp
	$(PIP) mkdocs mkdocs-material 'mkdocstrings[python]'
	touch $@
