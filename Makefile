# make demo   a pipeline on this machine, with what is installed here
# make test   linters and all tests
# make bench  measures the hop through the sidecar against a bare loop
#
# All work in a virtual environment of their own, .venv, made on first use from the lock file.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test check tests bench lock clean

demo: $(VENV)/ready
	$(BIN)/fluent-bridge demo $(ARGS)

test: check tests

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

tests: $(VENV)/ready
	$(BIN)/pytest $(ARGS)

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks.hop $(ARGS)

# The versions that CI tests. Hashes, but no addresses: the package index is the user's choice.
lock: $(VENV)/ready
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements.lock

$(VENV)/ready: requirements.lock pyproject.toml
	PYTHON=$(PYTHON) scripts/make-venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
