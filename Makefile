# Every target sets up .venv by itself, from constraints.txt. PYTHON chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: read test site lint bench notebooks clean

read: $(READY) ## open the book in JupyterLab
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" notebooks/capstone.ipynb

test: lint ## all tests; those of a real checkpoint need QWEN2_BOOK_CHECKPOINT
	HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error $(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/checks.py
	$(BIN)/python tools/notebooks.py --check

site: $(READY) ## build the website into _build/html
	$(BIN)/python tools/site_builder.py

bench: $(READY) ## measure beside transformers; needs QWEN2_BOOK_CHECKPOINT
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.engines

notebooks: $(READY) ## run the notebooks from their text; needs QWEN2_BOOK_CHECKPOINT
	$(BIN)/python tools/notebooks.py $(CHAPTER)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or \
	  sys.exit("found Python %d.%d, expected 3.11 to 3.13: make PYTHON=python3.12 ..." % v)'
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "$(PYTHON) cannot make virtual environments: install its venv package (python3-venv)."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
	  --editable '.[read,test,parity,site,dev]'
	@touch $@

clean: ## remove what was built
	rm -rf .venv _build build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
