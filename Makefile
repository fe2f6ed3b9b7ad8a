# Each target makes .venv with the pinned versions first, so a fresh clone needs only python3 (3.11 or newer) and make.
PYTHON ?= python3
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
VENV := .venv
RUN ?= runs/speedrun
# The targets start many processes; without bytecode each would compile the sources again.
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: conformance test bench check clean speedrun mutation mutation-bounds mutation-paths

conformance: $(READY)  ## every op: unbounded integers, Numba, Torch and Triton against the golden specification
	$(BIN)/mamba-integer conform --backend unbounded --backend numba --backend torch --backend triton --jobs $(JOBS)

# In the order of collection: pytest-xdist would start the groups of few tests last, of which some take long.
test: $(READY) check  ## our own tests, the suite's tests of itself included
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder

# Alone, since a kernel that was cached without these checks would be run without them. What compares a failing case
# again needs these variables as well. A parallel version passes over such an error: it is the serial one's source.
CHECKED := NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(VENV)/checked MAMBA_INTEGER_PARALLEL_FROM=9223372036854775807

# A sample of about 6,800 mutants, and of the 6,000 of kernels, which are compiled anew for each: 0 is all of them. No
# mutant is started after so many minutes, 0 is no limit. Verdicts are remembered until what decides them changes, so that
# the next call goes on: make mutation MUTANTS=0 KERNEL_MUTANTS=0 MINUTES=0 ends after a day, or after several calls.
MUTANTS ?= 600
KERNEL_MUTANTS ?= 200
MINUTES ?= 15
MUTATION := $(BIN)/python -m mamba_integer.conformance.mutants.mutation --jobs $(JOBS) --minutes $(MINUTES) \
	--remember $(VENV)/mutants.jsonl
# The parts of it that can be left out: make mutation CHECKS=
CHECKS ?= bounds paths

mutation: $(READY) $(CHECKS:%=mutation-%)  ## what judges the specification, judged: kernels inside their arrays, every path taken, each mutant found
	$(MUTATION) --sample $(MUTANTS) --json $(VENV)/mutation.json --target integers --target golden --target contracts \
		--target philox --target tables --target comparison
	$(MUTATION) --sample $(KERNEL_MUTANTS) --json $(VENV)/mutation-numba.json --target numba

mutation-bounds: $(READY)  # with time to compile each kernel with its checks, on a machine that may be busy
	$(CHECKED) $(BIN)/mamba-integer conform --backend numba --jobs $(JOBS) --timeout 900

mutation-paths: $(READY)
	$(BIN)/python -m mamba_integer.conformance.paths --jobs $(JOBS)

speedrun: $(READY)  ## train a small model on Shakespeare with integers alone, on this CPU, then let it write
	$(BIN)/mamba-integer train --config tiny --text benchmarks/data/shakespeare.txt.gz --steps 2000 --batch 8 \
		--length 256 --rate 0.001 --validate-every 250 --save-every 250 --out $(RUN) --resume
	$(BIN)/mamba-integer generate --model $(RUN) --prompt "ROMEO:" --max-tokens 400 --temperature 0.8

check: $(READY)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.ci/editable $(BIN)/mypy -p mamba_integer.spec -p mamba_integer.backends -p mamba_integer.conformance

bench: $(READY)  ## time the backends that this machine has, beside their physical floor
	$(BIN)/mamba-integer bench

$(READY): pyproject.toml .ci/requirements.txt .ci/node/package-lock.json
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .ci/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	mkdir -p $(VENV)/node && cp .ci/node/*.json $(VENV)/node
	if command -v npm >/dev/null; then cd $(VENV)/node && npm ci --silent --no-audit --no-fund; \
		else echo "npm is missing: the test of snarkjs, the second verifier of proofs, is skipped"; fi
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache
