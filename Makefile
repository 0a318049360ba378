# make demo   a pipeline on this machine, with what is installed here
# make test   linters and all tests
# make test-k8s   pods on a real Kubernetes node, an hour; make test-k8s-smoke the part of it that CI runs
# make bench  measures the hop through the sidecar against a bare loop
# make bench-kafka   the roads from Kafka to Kafka against each other, and against Spark if it is installed
# make bench-filter  what one gRPC filter costs a Fluentd pipeline
# make bench-reload  what reloading filters costs those that serve
# make screens  captures what tap and top show, into docs/screens/
# make proto  generates code from proto/, for Python and for Ruby
# make gem    builds the Fluentd plugins as a gem, into dist/
# make images builds the container images of the sidecar and of Fluentd: images/README.md
# make base-image  what they start from where no registry can be asked
#
# All work in a virtual environment of their own, .venv, made on first use from the lock file.

PYTHON ?= python3
VENV   := .venv
GEM    ?= fluent-gem
BIN    := $(VENV)/bin

.PHONY: demo test check tests test-k8s test-k8s-smoke bench bench-kafka bench-filter bench-reload screens proto gem images base-image lock clean

demo: $(VENV)/ready
	$(BIN)/fluent-bridge demo $(ARGS)

test: check tests

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples/*/filters/*.py
	$(BIN)/lint-imports
	$(BIN)/buf lint proto

tests: $(VENV)/ready
	$(BIN)/pytest $(ARGS)

# Builds the images, starts a node, and takes the Kafka on the PATH. What is not there is a failure, not a skip.
test-k8s: $(VENV)/ready
	BRIDGE_TEST_REQUIRE=kubectl,kubernetes,kafka,prometheus,promtool $(BIN)/pytest tests/images tests/kubernetes $(ARGS)

test-k8s-smoke:
	$(MAKE) test-k8s ARGS="-m smoke -k 'not forward' $(ARGS)"

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks.hop $(ARGS)

bench-kafka: $(VENV)/ready
	$(BIN)/python -m benchmarks.kafka $(ARGS)

bench-filter: $(VENV)/ready
	$(BIN)/python -m benchmarks.filter $(ARGS)

bench-reload: $(VENV)/ready
	$(BIN)/python -m benchmarks.reload $(ARGS)

screens: $(VENV)/ready
	$(BIN)/python scripts/capture-screens $(ARGS)

proto: $(VENV)/ready
	PYTHON=$(BIN)/python scripts/generate-proto

gem:
	mkdir -p dist
	cd fluent-conf/fluent-plugin-bridge && $(GEM) build fluent-plugin-bridge.gemspec --output ../../dist/fluent-plugin-bridge.gem

images: $(VENV)/ready
	PYTHON=$(BIN)/python images/build $(ARGS)

base-image:
	images/base

# The versions that CI tests. Hashes, but no addresses: the package index is the user's choice.
lock: $(VENV)/ready
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements.lock
	# What the image of the sidecar installs: of these versions, those that are needed to run.
	$(BIN)/uv pip compile pyproject.toml --constraint requirements.lock --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet --output-file images/sidecar/requirements.lock

$(VENV)/ready: requirements.lock pyproject.toml
	PYTHON=$(PYTHON) scripts/make-venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
