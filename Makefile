# Everything needs python3 (3.11 or newer, with venv), pip, git and make; the first target sets up the rest in .venv.
#
#   make demo       search, train and test a cell on digits (a few minutes after the installation)
#   make test       lint, types and the fast tests
#   make test-all   the slow tests as well (real data where it is at hand), and whether tests reach every branch of runtime/
#   make test-machines   the tests that compare numbers, as other CPUs and three versions of torch run them (ROWS="--rows 2 7": some)
#   make carry DATA=FOLDER   what benchmarks/gpu needs on a machine that has PyTorch and no network
#
# TORCH picks the PyTorch that is installed, e.g. `make demo TORCH=torch==2.13.0`; VENV and PYTHON another place or Python.

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch>=2.11
PY     := $(VENV)/bin/python
RUN    ?= runs/demo
TREES  := src tests examples benchmarks
# uv does not look where pip was told to find wheels; this tells it.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Without bytecode every process would compile all imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all test-machines lint format clean carry

demo: $(VENV)/.core
	$(PY) examples/demo.py $(RUN)

test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow" -n 2 --dist worksteal

test-all: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist worksteal
	OMP_NUM_THREADS=1 $(PY) -m coverage run -m pytest tests/runtime
	$(PY) -m coverage report

# A version that cannot be had is left out; the table says so.
test-machines:
	for version in 2.13.0 2.11.0; do \
		$(MAKE) VENV=.venv-$$version TORCH=torch==$$version .venv-$$version/.dev || true; \
	done
	$(MAKE) VENV=.venv-newest TORCH=torch .venv-newest/.dev || true
	$(PYTHON) tests/machines.py $(ROWS)

lint: $(VENV)/.dev
	$(PY) -m ruff check $(TREES)
	$(PY) -m ruff format --check $(TREES)
	$(PY) -m mypy

format: $(VENV)/.dev
	$(PY) -m ruff check --fix $(TREES)
	$(PY) -m ruff format $(TREES)

# uv installs several times faster than pip; where it cannot be had, pip does the same.
INSTALL = $(VENV)/bin/uv pip install -q --python $(PY) $(1) || $(PY) -m pip install -q $(1)

# Compiled kernels, where there is a wheel for them; nothing else is changed for their sake.
FAST = $(VENV)/bin/uv pip install -q --only-binary numba --only-binary llvmlite --python $(PY) "$(TORCH)" -e ".[fast]" 2> $(VENV)/fast.log || \
	$(PY) -m pip install -q --only-binary numba,llvmlite "$(TORCH)" -e ".[fast]" 2>> $(VENV)/fast.log || \
	echo "numba cannot be had for this Python: searches on the CPU take twice as long ($(VENV)/fast.log)"

$(VENV)/.core: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "diffnas needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q uv || true
	$(call INSTALL,"$(TORCH)" -e .)
	$(call FAST)
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(call INSTALL,"$(TORCH)" -e ".[dev]")
	touch $@

# The packages that such a machine lacks, for its Python, and CIFAR-10 in parquet files; see benchmarks/gpu.
BARE ?= 3.12
WHEELS := --only-binary=:all: --implementation cp --python-version $(BARE) \
	--platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64

carry:
	@ls "$(DATA)"/train-*.parquet "$(DATA)"/test-*.parquet > /dev/null 2>&1 || \
		{ echo "make carry DATA=FOLDER: FOLDER must hold train-*.parquet and test-*.parquet of CIFAR-10"; exit 1; }
	rm -rf carry
	mkdir -p carry/cifar10
	cp "$(DATA)"/train-*.parquet "$(DATA)"/test-*.parquet carry/cifar10
	chmod -R u+w carry
	$(PYTHON) -m pip download -q $(WHEELS) --dest carry/wheels "pydantic>=2.11,<3"
	for wheel in carry/wheels/*; do $(PYTHON) -m zipfile -e $$wheel carry/site; done
	rm -r carry/wheels
	git describe --always --dirty --abbrev=12 --exclude='*' > carry/commit
	@du -sh carry

clean:
	rm -rf $(VENV) .venv-* .pytest_cache .mypy_cache .ruff_cache
