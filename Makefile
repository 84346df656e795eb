# Every target sets up what it needs in .venv; all it asks of the machine is Python 3.11 or newer.

BIN := .venv/bin
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1   # two test workers with one thread each, not two fighting pools
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -q -n 2

.PHONY: help setup native demo test test-slow check fix docs bench fuzz
help:
	@echo "setup      install varbnn with its tools into .venv"
	@echo "native     compile the CPU kernels again, after a change of varbnn/kernels/cpu"
	@echo "demo       fit a binary network with a posterior on handwritten digits"
	@echo "test       tests and doctests, without the slow ones"
	@echo "test-slow  the slow tests"
	@echo "check      format, lint, types, spelling, tests, doctests, docs"
	@echo "fix        format, and repair what lint can repair safely"
	@echo "docs       build docs/_build/html"
	@echo "bench      run the benchmarks"
	@echo "fuzz       damaged files and random calls against kernels built with sanitizers (needs GCC); half an hour"

setup: .venv/.dev

native:
	@PATH="$(CURDIR)/$(BIN):$$PATH" && cmake -S . -B build -DVARBNN_INPLACE=ON && cmake --build build --parallel

demo: .venv/.demo
	$(BIN)/varbnn demo

test: .venv/.dev
	$(PYTEST) -m "not slow"

test-slow: .venv/.dev
	$(PYTEST) -m slow

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(PYTEST) -m "not slow"
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

fix: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: .venv/.dev
	@for name in step_time rule_steps kernels sdp reference_run accuracy ablations; do \
	    echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; \
	done

# ASan must be there before Python is; torch itself was not built with it.
fuzz: .venv/.dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" && cmake -S . -B build/sanitize -DVARBNN_SANITIZE=ON && \
	    cmake --build build/sanitize --parallel
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    $(BIN)/python benchmarks/fuzz.py --library build/sanitize/_cpu.so

# --- set-up: .demo is what a user needs, .dev adds the tools of the house ---
# The CPU kernels are compiled on the way; cmake and ninja come from PyPI where the machine has no cmake. Without a C++
# compiler the set-up goes through all the same, and `import varbnn` says what is missing.

CANDIDATES := $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.venv/bin/pip:
	@for python in $(CANDIDATES); do \
	    $$python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || continue; \
	    exec $$python -m venv .venv; \
	done; echo "varbnn needs Python 3.11 or newer; none found. Name one: make PYTHON=/path/to/python3" >&2; exit 1

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing varbnn into .venv (a minute or two, once) ..."
	@$(INSTALL) scikit-build-core $$(command -v cmake >/dev/null || echo cmake ninja)
	@$(INSTALL) --no-build-isolation -e ".[demo]"
	@touch $@

.venv/.dev: .venv/.demo
	@echo "Installing the test and documentation tools ..."
	@$(INSTALL) --no-build-isolation -e ".[demo,test,docs]"
	@touch $@
