# Every target does its own set-up: on a fresh Debian 12 with Python 3.11, make and root (or sudo) nothing
# else is needed. The second time the set-up only looks and finds everything there.

PYTHON ?= python3
NOTEBOOK = notebooks/00-quickstart.ipynb
SOURCES = dockmagic runtime/dockmagic_runtime tests bench tools
export PYTHON
export PYTHONDONTWRITEBYTECODE = 1

.PHONY: help demo lab record test lint bench format clean

help:
	@echo "make demo   run the quick start and print what a notebook user sees"
	@echo "make lab    open it in JupyterLab"
	@echo "make record run it and save its outputs in it, for readers who do not run it"
	@echo "make test   linters, type checker, all tests, and a look for anything left behind"
	@echo "make bench  our engine beside Docker's, its BuildKit and buildah, as ratios"
	@echo "make lint   only the linters and the type checker"
	@echo "make clean  remove what these made in this folder"

demo:
	@tools/set-up demo
	@tools/as-root .venv/bin/python -m tools.demo $(NOTEBOOK)

lab:
	@tools/set-up demo
	@tools/as-root .venv/bin/python -m tools.lab $(NOTEBOOK)

record:
	@tools/set-up demo
	@tools/as-root .venv/bin/python -m tools.record $(NOTEBOOK)

test:
	@tools/set-up test
	@$(MAKE) --no-print-directory checks
	@tools/as-root .venv/bin/python -m tools.leftovers .venv/bin/python -m pytest $(PYTEST)

bench:
	@tools/set-up bench
	@tools/as-root .venv/bin/python -m bench

lint:
	@tools/set-up test
	@$(MAKE) --no-print-directory checks

.PHONY: checks
checks:
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/mypy

format:
	.venv/bin/ruff format $(SOURCES)

clean:
	rm -rf .venv .venv-uv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
