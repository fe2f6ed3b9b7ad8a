# Each target makes .venv with the pinned versions first, so a fresh clone needs only python3 (3.11 or newer) and make.
PYTHON ?= python3
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
VENV := .venv
RUN ?= runs/speedrun
# The targets start many processes; without bytecode each would compile the sources again.
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: conformance test bench check clean speedrun mutation

conformance: $(READY)  ## every op: unbounded integers, Numba, Torch and Triton against the golden specification
	$(BIN)/mamba-integer conform --backend unbounded --backend numba --backend torch --backend triton --jobs $(JOBS)

test: $(READY) check  ## our own tests, the suite's tests of itself included
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

# Alone, since a kernel that was cached without these checks would be run without them.
CHECKED := NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(VENV)/checked MAMBA_INTEGER_PARALLEL_FROM=9223372036854775807

# Of about 6,000: a kernel is compiled anew for each, which takes seconds. All of them: make mutation KERNEL_MUTANTS=0
KERNEL_MUTANTS ?= 90

mutation: $(READY)  ## what judges the specification, judged: kernels inside their arrays, every path taken, each mutant found
	$(CHECKED) $(BIN)/mamba-integer conform --backend numba --jobs $(JOBS)
	$(BIN)/python -m mamba_integer.conformance.paths --jobs $(JOBS)
	$(BIN)/python -m mamba_integer.conformance.mutants.mutation --target integers --target golden --target contracts \
		--target philox --target tables --target comparison --jobs $(JOBS) --json $(VENV)/mutation.json
	$(BIN)/python -m mamba_integer.conformance.mutants.mutation --target numba --sample $(KERNEL_MUTANTS) \
		--jobs $(JOBS) --json $(VENV)/mutation-numba.json

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
