# make demo   install, run the main job (a seed sweep with ASHA on a local Ray), end with a report
# make homework   install, run E1 to E7 of the modular-arithmetic homework (108 runs, hours; again: goes on where it was)
# make test   install with the development tools, check style and types, run the tests
# make soak   a study killed a hundred times at random moments (half an hour): docs/soak.md; the log is logs/soak.log

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STUDY ?= search_spaces/modular_arithmetic/demo.yaml
export RAY_USAGE_STATS_ENABLED = 0
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Some images switch bytecode off: then each of the many processes of a sweep would compile every module anew.
demo homework integration soak: export PYTHONDONTWRITEBYTECODE =

.PHONY: demo homework install test lint unit integration soak clean

demo: install
	$(BIN)/rung plan $(STUDY)
	$(BIN)/rung run $(STUDY)

homework: install
	for study in search_spaces/modular_arithmetic/e[0-9]-*.yaml; do $(BIN)/rung run $$study || exit; done

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@ $(VENV)/.installed

# The integration tests mostly wait for Ray to start; the unit tests, with less priority, use the time.
test: $(VENV)/.installed-dev
	$(MAKE) --jobs=3 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) lint unit integration

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/pytest --numprocesses logical --dist loadfile tests/unit

integration: $(VENV)/.installed-dev
	$(BIN)/pytest --numprocesses 2 --dist loadfile tests/integration

soak: $(VENV)/.installed-dev
	$(BIN)/python -m tests.integration.soak --kills 100 --seed 0 --log logs/soak.log

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
