# `make` lists the targets. Those that need Python make .venv first, unless PYTHON=... names an
# interpreter, whose environment is then used as it is.
.DEFAULT_GOAL := help
SHELL := /bin/sh
BASE_PYTHON ?= python3
IMAGES ?=
WEIGHTS ?= $(wildcard ../shared/weights/nanodet-plus-m_416.pth)

# The paths in prerequisites are relative, so that the project may lie below a path with spaces.
ifdef PYTHON
READY := check-python
INTERPRETER := $(PYTHON)
else
READY := .venv/.ready
INTERPRETER := .venv/bin/python
endif
# First on the path, so that a copied tree runs its own code and not what its .venv was made for.
PY = PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" "$(INTERPRETER)"

.PHONY: help
help: ## list the targets
	@echo "usage: make TARGET [PYTHON=/path/to/python]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(READY) ## make .venv and install everything into it (once; a few minutes)

.venv/.ready: pyproject.toml setup.py .ci/constraints.txt .ci/setup nanodet_d2/get_detectron2.py
	@.ci/setup "$(BASE_PYTHON)"

.PHONY: check-python
check-python:
	@PYTHON="$(PYTHON)" "$(PYTHON)" .ci/check_python.py $(TOOLS)

.PHONY: demo
demo: $(READY) ## draw a data set, train, evaluate, export, predict (4 minutes)
	@echo "== demo: draw a data set, train, evaluate, export, predict (4 minutes)"
	@$(PY) projects/nanodet_plus/demo.py $(ARGS)

.PHONY: demo-coco
demo-coco: $(READY) ## draw detections of COCO's classes: IMAGES="a.jpg b.jpg" [WEIGHTS=...]
	@test -n "$(IMAGES)" || { echo 'demo-coco: IMAGES is empty; give pictures, as in' \
	    'make demo-coco IMAGES="street.jpg kitchen.jpg"' >&2; exit 2; }
	@test -n "$(WEIGHTS)" || { echo 'demo-coco: WEIGHTS is empty; give the path of official' \
	    'weights, as in WEIGHTS=nanodet-plus-m_416.pth' >&2; exit 2; }
	@$(PY) -m nanodet_d2 predict projects/nanodet_plus/configs/nanodet_plus_m_416.py \
	    $(IMAGES) --weights "$(WEIGHTS)" --output output/demo_coco $(ARGS)

WEB := projects/nanodet_plus/web
.PHONY: web
web: $(WEB)/node_modules/.package-lock.json ## build the browser demo: [MODEL=output/export/model.onnx]; needs Node.js
	@cd $(WEB) && node build.mjs $(if $(MODEL),--model "$(abspath $(MODEL))")

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	@command -v npm >/dev/null || { echo 'web: there is no npm; on Debian: apt-get install' \
	    'nodejs npm' >&2; exit 2; }
	@cd $(WEB) && npm ci
	@touch $@

.PHONY: web-serve
web-serve: $(READY) ## serve the built browser demo on http://localhost:8000
	@$(PY) $(WEB)/serve.py $(ARGS)

.PHONY: cpp
cpp: $(READY) ## build the C++ programs into output/cpp (the first time minutes: ncnn)
	@$(PY) projects/nanodet_plus/cpp/build.py $(ARGS)

.PHONY: offline-bundle
offline-bundle: $(READY) ## pack what a machine without network lacks: [PYTHON_VERSION=3.12] [TORCH=2.11]
	@$(PY) projects/nanodet_plus/offline/bundle.py \
	    $(if $(PYTHON_VERSION),--python-version "$(PYTHON_VERSION)") \
	    $(if $(TORCH),--torch "$(TORCH)") $(ARGS)

.PHONY: gpu-check
gpu-check: $(READY) ## check and measure training on this machine's GPU (8 minutes)
	@$(PY) projects/nanodet_plus/benchmarks/gpu_check.py $(ARGS)

# Two processes with a thread each; ARGS="-n 0" runs the tests in one.
ONE_THREAD = OMP_NUM_THREADS=1 $(PY)
PYTEST = -m pytest -q -n 2 --dist worksteal tests

.PHONY: test
test: TOOLS = pytest hypothesis xdist
test: $(READY) ## run the tests (at most 4 minutes on 2 slow cores)
	@echo "== test: at most 4 minutes on 2 slow cores"
	@$(ONE_THREAD) $(PYTEST) $(ARGS)

.PHONY: test-slow
test-slow: TOOLS = pytest hypothesis xdist
test-slow: $(READY) ## run the tests that take minutes each
	@echo "== test-slow: the tests marked slow"
	@$(ONE_THREAD) $(PYTEST) -m slow $(ARGS)

.PHONY: test-all
test-all: TOOLS = pytest hypothesis xdist
test-all: $(READY) ## run all tests (at most 40 minutes on 2 slow cores)
	@echo "== test-all: at most 40 minutes on 2 slow cores"
	@$(ONE_THREAD) $(PYTEST) -m '' $(ARGS)

.PHONY: coverage
coverage: TOOLS = coverage pytest hypothesis xdist
coverage: $(READY) ## run all tests and print the lines that none of them reaches
	@echo "== coverage: all tests, at most an hour on 2 slow cores"
	@$(PY) -m coverage erase
	@$(ONE_THREAD) -m coverage run $(PYTEST) -m '' $(ARGS)
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report

# The site needs neither torch nor detectron2: conf.py stands in for what it imports.
ifdef PYTHON
DOCS_READY := check-docs
else
DOCS_READY := .venv/.docs
endif

.venv/.docs: pyproject.toml .ci/constraints.txt .ci/setup
	@.ci/setup "$(BASE_PYTHON)" docs

.PHONY: check-docs
check-docs:
	@PYTHON="$(PYTHON)" "$(PYTHON)" .ci/check_python.py --only sphinx furo myst_parser

.PHONY: docs
docs: $(DOCS_READY) ## build the site into output/docs [MODEL=of its demo]; warnings and dead links are errors
	@rm -rf output/docs_demo
	@! command -v node >/dev/null || ! test -d $(WEB)/node_modules || ( cd $(WEB) && node build.mjs \
	    --output ../../../output/docs_demo/demo $(if $(MODEL),--model "$(abspath $(MODEL))") )
	@$(PY) -m sphinx --fail-on-warning --keep-going --quiet -d output/docs_cache docs output/docs
	@echo "docs: output/docs/index.html"

.PHONY: notebooks
notebooks: TOOLS = nbclient ipykernel
notebooks: $(READY) ## run the notebooks and keep what they show (6 minutes; official weights)
	@$(PY) projects/nanodet_plus/notebooks/execute.py $(ARGS)

.PHONY: lint
lint: TOOLS = ruff mypy codespell_lib proselint
lint: $(READY) ## check style, format, types, spelling and prose (a minute; seconds when run again)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m codespell_lib README.md CHANGELOG.md CONTRIBUTING.md docs projects configs nanodet_d2
	@$(PY) -m proselint check --config .ci/proselint.json README.md CONTRIBUTING.md $(wildcard docs/*.md)

.PHONY: format
format: TOOLS = ruff
format: $(READY) ## put the code into the format lint asks for
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

.PHONY: clean
clean: ## remove caches and build folders; .venv and output/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
