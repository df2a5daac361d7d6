# One word for each thing you do. `make` or `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MARK ?=
SUITE ?=
# test processes: most tests wait for processes of their own, so one more than the two cores of CI
WORKERS ?= 3
# a file stays on one of them; in order of directories, so that suites of whole stacks begin first and none comes last
SPREAD := --dist loadfile --no-loadscope-reorder

# demo
PHOTO ?=
SKETCH ?=
PROMPT ?=
ONCE ?=

.PHONY: help demo run test check matrix soak fuzz bench lint lock clean

help: ## List what you can do here
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/it"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (once; a minute or two)…"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## A photo becomes concept images and a 3D model, on this machine [PHOTO= SKETCH= PROMPT= ONCE=1]
	@exec $(BIN)/makeit3d demo $(if $(PHOTO),--photo "$(PHOTO)") $(if $(SKETCH),--sketch "$(SKETCH)") $(if $(PROMPT),--prompt "$(PROMPT)") $(if $(ONCE),--once)

run: $(STAMP) ## Start everything on this machine and keep serving (embedded servers, sandbox providers)
	@exec $(BIN)/makeit3d up

test: $(STAMP) ## Lint, types, import layers and every test suite [MARK=chaos SUITE=tests/chaos/test_slots.py WORKERS=3]
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) $(if $(MARK),-m "$(MARK)") $(SUITE)

check: $(STAMP) ## Format the code, then everything that `make test` does
	@$(BIN)/ruff format app tests bench
	@$(MAKE) --no-print-directory test

matrix: $(STAMP) ## Kill processes at every crash point, with every operation, once and three times running (`make test`: a part)
	@exec $(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) --matrix=full tests/chaos/crashes

soak: $(STAMP) ## Random lives of jobs, then load with random kills of every process, then the audit [MINUTES=20 RATE=0.7 KILLS=6 SEED=]
	@$(BIN)/python -m pytest --quiet --timeout 3600 --hypothesis-profile=soak tests/chaos/test_state_machine.py
	@exec $(BIN)/python -m tests.chaos.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RATE),--rate $(RATE)) $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) $(if $(KEEP),--keep "$(KEEP)")

fuzz: $(STAMP) ## Random requests by the interface's own document, more than `make test` sends [EXAMPLES=500 SEED=1]
	@exec $(BIN)/python -m pytest tests/integration -k test_fuzz_ --timeout 0 --fuzz-examples $(or $(EXAMPLES),500) --fuzz-seed $(or $(SEED),1)

lint: $(STAMP) ## Formatting, lint rules, strict types, direction of imports
	@$(BIN)/ruff format --check app tests bench
	@$(BIN)/ruff check app tests bench
	@$(BIN)/pyright
	@$(BIN)/lint-imports

bench: $(STAMP) ## Figures beside their references, and the goals (docs/benchmarks.md) [PART=polls QUICK=1 ROUNDS=5 JSON= DOCS=1 NOTE=]
	@exec $(BIN)/python -m bench $(PART) $(if $(QUICK),--quick) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(JSON),--json "$(JSON)") $(if $(DOCS),--write-docs) $(if $(NOTE),--note "$(NOTE)")

lock: $(STAMP) ## Pin the dependencies again, with hashes
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras pyproject.toml -o requirements.lock

clean: ## Remove what was installed; the data in .makeit3d stays
	@rm -rf $(VENV) build *.egg-info
