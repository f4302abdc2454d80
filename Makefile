# Turntable. `make demo` shows it, `make test` proves it; both set everything up first. `make` alone lists the targets.

VENV := .venv
PY ?= $(VENV)/bin/python
EXTRAS ?= farm,cluster,s3,models,mesh,train,dev
TORCH_INDEX ?=
PYTEST_ARGS ?=
THREADS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ "$$n" -gt 4 ] && n=4; echo "$$n")

# More threads than free cores cost minutes (torch, numba and BLAS all spin), so say the number.
export OMP_NUM_THREADS := $(THREADS)
export OMP_WAIT_POLICY := PASSIVE
export OPENBLAS_NUM_THREADS := $(THREADS)
export NUMBA_NUM_THREADS := $(THREADS)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# With PY=... the tests run under an interpreter of your own (a GPU machine's, say) and nothing is installed.
READY := $(VENV)/.ready
INSTALLING := $(VENV)/.installing
ifneq ($(PY),$(VENV)/bin/python)
READY :=
endif

# The interpreter beneath, should `python3.11` be that of this very .venv or of another; fails if it is no 3.11.
BASE_PYTHON := import sys; print(sys._base_executable); sys.exit(sys.version_info[:2] != (3, 11))

.PHONY: help setup demo demo-text demo-farm test test-fast lint train-mini gpu-check bench clean
.DEFAULT_GOAL := help

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
	    printf '  make %-10s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  THREADS=2              cores to use (now $(THREADS))'
	@echo '  TORCH_INDEX=URL        take torch from this wheel index, such as that of the small CPU builds'
	@echo '  PY=python3             run the tests under another interpreter; installs nothing'

setup: $(READY) ## Make .venv: system libraries are checked first, then pinned Python packages come in
	@echo 'Ready: $(VENV). Next: make demo'

# A stamp, so that nothing is done twice. `.installing` stays behind when this is interrupted: pip leaves halves of
# packages that it later takes for whole ones, so the next run starts the folder afresh.
$(VENV)/.ready: pyproject.toml constraints.txt
	@set -eu; \
	python=; for candidate in python3.11 python3; do \
	    if python=$$("$$candidate" -c '$(BASE_PYTHON)' 2>/dev/null); then break; fi; python=; done; \
	if [ -z "$$python" ]; then \
	    echo "Python 3.11 was not found. Blender's bpy 4.5 LTS is built for 3.11 alone: install python3.11." >&2; \
	    exit 1; fi; \
	"$$python" engine/system_libraries.py --install; \
	if [ -e $(INSTALLING) ]; then echo "The last setup was interrupted: starting $(VENV) afresh."; rm -rf $(VENV); fi; \
	if [ ! -e $(VENV)/bin/python ]; then \
	    echo "Setting up $(VENV), once: about 0.9 GB to download and 3 GB on disk; with the CUDA build of torch,"; \
	    echo "which PyPI serves to Linux, about 3 GB more to download and 5 GB more on disk."; fi; \
	if ! $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then "$$python" -m venv --clear $(VENV); fi; \
	touch $(INSTALLING); \
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	    $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch; \
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'; \
	rm $(INSTALLING); \
	touch $(VENV)/.ready

demo: $(READY) ## From nothing to a Blender scene: a picture becomes views, splats and a mesh (minutes on a CPU)
	turntable generate --image examples/lighthouse.png --preset mini --elevation-deg 15 --out outputs/demo/lighthouse
	python -m blender_addon.headless outputs/demo/lighthouse --scene outputs/demo/scene.blend --preview outputs/demo/preview.png
	turntable summary outputs/demo/lighthouse

demo-text: $(READY) ## The same from a sentence: make demo-text TEXT="a wooden chair"
	turntable generate --text "$(TEXT)" --preset mini --elevation-deg 15 --out outputs/demo-text/result
	python -m blender_addon.headless outputs/demo-text/result --scene outputs/demo-text/scene.blend \
	    --preview outputs/demo-text/preview.png
	turntable summary outputs/demo-text/result

demo-farm: $(READY) ## From a known object: render its orbit, reconstruct it, measure it, import it (minutes on a CPU)
	turntable-farm example --out outputs/demo-farm/lighthouse.glb
	turntable-farm render outputs/demo-farm/lighthouse.glb --orbit ring24 --size 256 --out outputs/demo-farm/orbit
	turntable reconstruct outputs/demo-farm/orbit --out outputs/demo-farm/result --holdout-every 3 \
	    --truth outputs/demo-farm/lighthouse.glb
	python -m blender_addon.headless outputs/demo-farm/result --scene outputs/demo-farm/scene.blend \
	    --preview outputs/demo-farm/preview.png
	turntable summary outputs/demo-farm/result

# Processes side by side, one thread each; tests of one file stay together where they share a render.
ONE_THREAD := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
test: $(READY) ## Run every test: the quick ones first, then those that start Blender or take long
	$(ONE_THREAD) $(PY) -m pytest -n $(THREADS) $(PYTEST_ARGS) -m "not blender and not slow and not network"
	$(ONE_THREAD) $(PY) -m pytest -n $(THREADS) --dist loadfile $(PYTEST_ARGS) -m "(blender or slow) and not network"

test-fast: $(READY) ## Run the quick tests alone
	$(ONE_THREAD) $(PY) -m pytest -n $(THREADS) $(PYTEST_ARGS) -m "not blender and not slow and not network and not gpu"

lint: $(READY) ## ruff, mypy and the import rules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	lint-imports

TEXT ?= a wooden barrel
STAGE ?= image
MINUTES ?= 25
DATA ?= ../shared/data/orbits128
train-mini: $(READY) ## Train a stage of the bundled small weights on from where they are: MINUTES=25 make train-mini STAGE=image
	turntable train-mini $(STAGE) --data $(DATA) --minutes $(MINUTES) --threads $(THREADS)

BENCHMARKS = $(sort $(wildcard tests/benchmarks/bm_*.py))
# Each benchmark prints one JSON document; `mv` only after success, so that a broken run leaves no result.
define run_benchmarks
	@set -eu; mkdir -p "$(1)"; for script in $(BENCHMARKS); do name=$$(basename "$$script" .py); echo "$$name" >&2; \
	    $(PY) "$$script" >"$(1)/$$name.partial"; mv "$(1)/$$name.partial" "$(1)/$$name.json"; done
endef

gpu-check: export PYTHONPATH := $(CURDIR)
gpu-check: $(READY) ## On a CUDA machine: the tests marked gpu, then the benchmarks; JSON to $OUT or build/gpu-check
	@$(PY) -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "gpu-check needs a CUDA device: none here")'
	$(PY) -m pytest $(PYTEST_ARGS) -m gpu
	$(call run_benchmarks,$(or $(OUT),build/gpu-check))

bench: export PYTHONPATH := $(CURDIR)
bench: $(READY) ## Run the benchmarks; JSON to tests/benchmarks/results
	$(call run_benchmarks,tests/benchmarks/results)

clean: ## Remove outputs, builds and caches; .venv stays
	rm -rf outputs build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
