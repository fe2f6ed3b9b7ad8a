# Each target makes .venv with the pinned versions first, so a fresh clone needs only python3 (3.11 or newer) and make.
PYTHON ?= python3
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
VENV := .venv
RUN ?= runs/speedrun
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: conformance test bench check clean speedrun

conformance: $(READY)  ## every op: unbounded integers, Numba, Torch and Triton against the golden specification
	$(BIN)/mamba-integer conform --backend unbounded --backend numba --backend torch --backend triton --jobs $(JOBS)

test: $(READY) check  ## our own tests, the suite's tests of itself included
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

speedrun: $(READY)  ## train a small model on Shakespeare with integers alone, on this CPU, then let it write
	$(BIN)/mamba-integer train --config tiny --text benchmarks/data/shakespeare.txt.gz --steps 2000 --batch 8 \
		--length 256 --rate 0.001 --validate-every 250 --save-every 250 --out $(RUN) --resume
	$(BIN)/mamba-integer generate --model $(RUN) --prompt "ROMEO:" --max-tokens 400 --temperature 0.8

check: $(READY)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.ci/editable $(BIN)/mypy -p mamba_integer.spec -p mamba_integer.backends -p mamba_integer.conformance

bench: $(READY)  ## time the backends that this machine has, beside their physical floor
	$(BIN)/python -m benchmarks.run

$(READY): pyproject.toml .ci/requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .ci/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache
