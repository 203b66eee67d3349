# Every command a newcomer or a machine needs. `make` alone lists them.

VENV   ?= .venv
EXTRAS ?= test,parity
PY     := $(VENV)/bin/python
FOR_NEWEST := VENV=.venv-newest EXTRAS=test
FOR_AOT    := VENV=.venv-aot EXTRAS=test,tpu-aot,gpu-aot
# What the version of JAX may decide: the models and kernels but for shapes drawn beside the named
# ones, every recipe resumed after two steps, and what compiles, saves and shares out a step.
DECIDED_BY_JAX := -m "not aot and not matrix and not slow" -k "not drawn_shapes" tests/test_imports.py \
	tests/zoo tests/kernels $(addprefix tests/train/test_,$(addsuffix .py,checkpoint cli collectives \
	export flops optim parallel recipes step))

export NO_MKDOCS_2_WARNING := 1 # mkdocs-material's notice about other projects

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-newest test-aot lint format docs serve-docs bench constraints environment \
	environments clean FORCE

help: ## List the commands
	@printf '\nZoo from Scratch\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1mmake %-12s\033[0m %s\n", $$1, $$2 }' Makefile
	@printf '\nPython is found by itself; another one: make demo PYTHON=PATH\n\n'

demo: $(VENV)/.core ## Train a ConvNet on real handwritten digits, from nothing to 98 % in about a minute
	$(PY) -m train run digits-convnet --workdir runs/demo --resume never

test: $(VENV)/.test ## Run the whole test suite; a part of it: make test TESTS="-k conv"
	$(PY) -m pytest -n auto --dist worksteal $(TESTS)

test-newest: ## Run what depends on JAX again, on Python 3.13 or 3.12 with the newest of it
	@newest='$(NEWEST)'; if [ -n "$$newest" ]; \
	then $(MAKE) --no-print-directory test $(FOR_NEWEST) PYTHON="$$newest" \
		TESTS='$(DECIDED_BY_JAX) $(TESTS)'; \
	else echo 'No Python 3.13 or 3.12 was found: the suite did not run with the newest JAX.'; fi

# The plans are timed, and their compiler has threads of its own: nothing else runs beside them.
test-aot: ## Compile kernels and recipes for GPUs and TPUs, which need not be here
	@REQUIRE_COMPILERS=1 $(MAKE) --no-print-directory test $(FOR_AOT) \
		TESTS="--numprocesses 0 -m aot tests/aot/test_plan.py $(TESTS)"
	@REQUIRE_COMPILERS=1 $(MAKE) --no-print-directory test $(FOR_AOT) \
		TESTS="--dist loadfile -m aot tests/aot --ignore tests/aot/test_plan.py $(TESTS)"

lint: $(VENV)/.test $(VENV)/.docs ## Check style (ruff) and types (pyright)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright --pythonpath $(PY)

format: $(VENV)/.test ## Put the code into the project's format, and mend what ruff can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(VENV)/.docs ## Build the documentation into site/, warnings are errors
	$(PY) -m mkdocs build --strict

serve-docs: $(VENV)/.docs ## Show the documentation at http://127.0.0.1:8000 while it is written
	$(PY) -m mkdocs serve

bench: $(VENV)/.test ## Measure against stock Flax and PyTorch
	$(PY) -m benchmarks run

environment: $(VENV)/.test $(VENV)/.docs ## Install what test, lint and docs need

# pip waits for the network half of the time, and uses one core for the other half.
environments: ## Install what all commands need, test-newest and test-aot too, side by side
	@$(MAKE) --no-print-directory environment & first=$$!; \
	$(MAKE) --no-print-directory .venv-aot/.test $(FOR_AOT) & second=$$!; \
	newest='$(NEWEST)'; if [ -n "$$newest" ]; \
	then $(MAKE) --no-print-directory .venv-newest/.test $(FOR_NEWEST) PYTHON="$$newest"; fi; \
	third=$$?; wait $$first && wait $$second && exit $$third

clean: ## Remove environments, caches and the built site; runs/ stays
	rm -rf .venv .venv-* .cache .hypothesis .pytest_cache .ruff_cache build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- Finding Python -------------------------------------------------------------------------
# A name on the PATH proves little (version managers leave commands that refuse to start; some
# systems leave out ensurepip), so each is run before it is believed. $(1): least version, as in
# sys.hexversion; $(2): commands to try.
first_that_starts = $(firstword $(foreach python,$(2),$(shell \
	$(python) -c 'import ensurepip, sys; sys.exit(sys.hexversion < $(1))' >/dev/null 2>&1 \
	&& echo $(python))))
pyenv_versions = $(addsuffix /versions,$(wildcard $(PYENV_ROOT) $(HOME)/.pyenv \
	$(patsubst %/,%,$(dir $(patsubst %/,%,$(dir $(shell command -v pyenv)))))))

PYTHON ?= $(call first_that_starts,0x030b0000,python3.11 python3.12 python3.13 python3)
NEWEST ?= $(call first_that_starts,0x030c0000,python3.13 python3.12 \
	$(foreach v,13 12,$(wildcard $(addsuffix /3.$(v).*/bin/python3,$(pyenv_versions)))))

# --- Environments ---------------------------------------------------------------------------
# A stamp is written only after what it stands for has succeeded. An installation that was cut
# off, or an environment whose Python is gone, starts again from nothing.
ifneq ($(shell test ! -e $(VENV)/.installing && $(PY) -c 'import pip' >/dev/null 2>&1 || echo yes),)
  BROKEN := FORCE
endif

$(VENV)/.created: $(BROKEN)
	@python='$(PYTHON)'; rule='Python 3.11 or newer that starts and has venv'; \
	hint='name one: make demo PYTHON=PATH'; \
	if [ -z "$$python" ]; then \
		echo "error: none of python3.11, python3.12, python3.13, python3 is a $$rule; $$hint" >&2; exit 1; \
	elif ! "$$python" -c 'import ensurepip, sys; sys.exit(sys.hexversion < 0x030b0000)'; then \
		echo "error: $$python is not a $$rule; $$hint" >&2; exit 1; \
	fi; \
	"$$python" -m venv --clear $(VENV)
	@touch $@

# $(1): the extras to install, in brackets
define install
@echo "Installing into $(VENV) (once; a minute or a few) ..."
@touch $(VENV)/.installing
@$(PY) -m pip install --quiet --quiet --editable '.$(1)' --constraint $$($(PY) -c 'import sys; \
	print("constraints/py311.txt" if sys.version_info < (3, 12) else "constraints/newest.txt")')
@rm $(VENV)/.installing
@touch $@
endef

REQUIREMENTS := $(VENV)/.created pyproject.toml $(wildcard constraints/*.txt)
$(VENV)/.core: $(REQUIREMENTS)
	$(call install)
$(VENV)/.test: $(REQUIREMENTS)
	$(call install,[$(EXTRAS)])
$(VENV)/.docs: $(REQUIREMENTS)
	$(call install,[docs])

# --- Pinned versions ------------------------------------------------------------------------
# pip resolves from nothing and installs nothing; local builds (+cpu) count as their release.
define pin
@echo "Resolving for $(1) into $(2) ..."
@rm -rf .cache/pin && $(1) -m venv .cache/pin
@.cache/pin/bin/python -m pip install --quiet --quiet --dry-run --ignore-installed \
	--report .cache/pin.json '.[test,parity,docs,tpu-aot,gpu-aot]'
@.cache/pin/bin/python -c 'import json; \
	found = [p["metadata"] for p in json.load(open(".cache/pin.json"))["install"]]; \
	rows = {m["name"].lower().replace("_", "-"): m["version"].split("+")[0] for m in found}; \
	del rows["zoo-from-scratch"]; \
	print("# What continuous integration runs with. Written by: make constraints"); \
	print(*(f"{name}=={rows[name]}" for name in sorted(rows)), sep="\n")' > $(2)
@rm -r .cache/pin .cache/pin.json
endef

constraints: ## Write constraints/*.txt again with today's versions
	$(call pin,python3.11,constraints/py311.txt)
	$(call pin,$(NEWEST),constraints/newest.txt)
