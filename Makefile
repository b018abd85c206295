# The commands of a developer. `make` alone lists them.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-all test-random chaos evening fuzz check-dify check-ws batch-run bench lint format rules venv clients clean

VENV := .venv
RULE := k8s/monitoring/prometheusrule.yaml
# Name another with `make PYTHON=/path/to/python3 demo`.
PYTHONS := $(or $(PYTHON),python3 python3.11 python3.12 python3.13)
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --no-input --retries 2

# A value given on the command line reaches the demo and the checks as it was typed, dollar signs and all.
verbatim = $(if $(filter command%,$(origin $(1))),$(eval override export $(1) := $$(value $(1))))
$(foreach name,ASK DIFY_BASE_URL DIFY_API_KEY PORT WECHAT_MODE,$(call verbatim,$(name)))

# Stop with one line and nothing else: a recipe that fails adds make's own line to it.
stop_if = $(if $(strip $(1)),$(error $(1)))

# The first Python that is new enough, or nothing.
python = $(shell for python in $(PYTHONS); do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)

# Says in one line what is missing, or nothing.
missing = $(shell set -- $(PYTHONS); \
	if [ -z "$(1)" ]; then \
		found=$$("$$1" -c 'import platform; print(platform.python_version())' 2>/dev/null); \
		echo "Python 3.11 or newer is missing$${found:+ ($$1 is $$found)}: apt install python3 python3-venv"; \
	elif ! "$(1)" -c 'import venv, ensurepip' 2>/dev/null; then \
		echo "$(1) lacks venv: apt install python3-venv"; \
	fi)

# LOCK=1 installs by hash what CI runs on; without it every Python from 3.11 on gets the same versions by its own files.
from = $(if $(LOCK),--require-hashes --requirement $(if $(findstring fast,$(1)),requirements-fast.lock,requirements-dev.lock),--requirement $(1))

# Not empty under `make -n`, which prints recipes and must install nothing.
dry = $(findstring n,$(firstword -$(MAKEFLAGS)))

# Installs, and says in one line why it could not, or nothing. pip's own words are in the log. pip compiles on one core.
install = $(if $(dry),,$(shell echo "Installing $(1) into $(VENV) ..." >&2; \
	if $(PIP) install --no-compile $(call from,$(1)) >$(VENV)/pip.log 2>&1; then \
		$(VENV)/bin/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1; \
	else \
		if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError' $(VENV)/pip.log; then \
			echo "No connection to the Python package index: the first start needs the network (pip's log: $(VENV)/pip.log)"; \
		else \
			echo "pip could not install $(1) (see $(VENV)/pip.log): $$(grep '^ERROR' $(VENV)/pip.log | tail -n 1)"; \
		fi; \
	fi))

# Prints a word where it could not: production has it, tests do without.
install_fast = $(if $(dry),,$(shell $(PIP) install $(call from,requirements-fast.txt) >>$(VENV)/pip.log 2>&1 || echo no))

# A link leads to an environment that others may use: it is not emptied.
make_venv = $(if $(dry),,$(if $(shell test -L $(VENV) && echo link),$(VENV) is a link: remove it to get an environment here,$(call new_venv,$(1))))
new_venv = $(shell "$(1)" -m venv --clear $(VENV) >/dev/null 2>&1 || echo "$(1) could not make $(VENV): is the disk full, the folder read-only?")

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/demo.stamp ## the whole bot here, nothing to set up; ASK="a question" answers in the terminal; WECHAT_MODE=websocket uses the long connection; DIFY_BASE_URL= DIFY_API_KEY= use a real Dify app; PORT= is the page's, the gateway has the next one
	@exec $(VENV)/bin/python -m demo

# Most tests wait for something: more processes than cores keep the cores busy. Those that `make test` leaves out wait more.
pytest = $(VENV)/bin/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) * $(1))) --maxprocesses 8 --dist worksteal

# Tests are compiled once, whatever the caller's environment says: otherwise each process of each run compiles all of them,
# which takes longer than everything else of their collection.
test test-all test-random: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/dev.stamp ## the quick suite, on several cores: four minutes on two; PYTEST_ARGS="-k name -n 0" chooses
	@exec $(call pytest,2) -m "not full" $(PYTEST_ARGS)

test-all: $(VENV)/dev.stamp ## every test: what `make test` leaves out too; PYTEST_ARGS="-k name -n 0" chooses
	@exec $(call pytest,3) --hypothesis-profile=full $(PYTEST_ARGS)

test-random: $(VENV)/dev.stamp ## the quick suite with a new seed: other values, examples and order; PYTEST_ARGS="--seed 7" draws those of an earlier run again
	@exec $(call pytest,2) -m "not full" --seed random $(PYTEST_ARGS)

chaos: $(VENV)/dev.stamp ## every channel in use for five minutes while replicas and the servers around them fail, and what it cost; CHAOS_ARGS="--faults freeze" chooses
	@exec $(VENV)/bin/python -m tests.scenarios.chaos $(CHAOS_ARGS)

evening: $(VENV)/dev.stamp ## five minutes of 500 people while replicas are killed and SQL is away, and whether log, usage, quotas and provider agree; EVENING_ARGS="--people 50"
	@exec $(VENV)/bin/python -m tests.scenarios.evening $(EVENING_ARGS)

fuzz: $(VENV)/dev.stamp ## send mutated requests, frames and provider streams to a replica, and print what broke; N=1000000 is how many, SEED=2 draws others; FUZZ_ARGS="--set WEBSOCKET_AUTH=token"
	@exec $(VENV)/bin/python -m tests.scenarios.fuzz --inputs $(or $(N),100000) --seed $(or $(SEED),1) $(FUZZ_ARGS)

check-dify: $(VENV)/demo.stamp ## ask the Dify app of DIFY_BASE_URL= DIFY_API_KEY=: stream, blocking, two turns, list; CHECK_ARGS="--timeout 120"
	@exec $(VENV)/bin/python -m tools.dify --check $(CHECK_ARGS)

check-ws: $(VENV)/demo.stamp ## start the server, ask over both of its WebSockets, show the end of its log; DIFY_BASE_URL= DIFY_API_KEY= use a real Dify app
	@exec $(VENV)/bin/python -m demo.check_ws

batch-run: $(VENV)/dev.stamp ## a batch of 2,000 questions while replicas and Redis are lost, and what it cost; BATCH_ARGS="--items 500" shortens it
	@exec $(VENV)/bin/python -m tests.scenarios.batch_run $(BATCH_ARGS)

bench: $(VENV)/dev.stamp ## how fast it is on this machine, beside its floor, and docs/performance.md made of it; twenty-five minutes; BENCH_ARGS="--only polls" for a part
	@exec $(VENV)/bin/python -m bench $(BENCH_ARGS)

lint: $(VENV)/dev.stamp ## ruff, its formatter, bandit, mypy --strict
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive app.py gunicorn.conf.py bootstrap channels config demo server services tools utils
	@$(VENV)/bin/mypy --strict

format: $(VENV)/dev.stamp ## put the code into its form
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

rules: ## write the PrometheusRule of k8s/monitoring from deploy/prometheus-rules.yaml
	@{ sed '/^spec:/q' $(RULE); sed '/^#/d; s/^./  &/' deploy/prometheus-rules.yaml; } > $(RULE).new && mv $(RULE).new $(RULE)

venv: $(VENV)/dev.stamp ## make the virtual environment, tests and checks included

clients: .clients/made.stamp ## install the clients that tests run, in an environment of their own; needs npm

clean: ## remove the virtual environment and every cache
	@rm -rf $(VENV) .clients .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew whenever a pin changes, so that nothing older lingers in it.
$(VENV)/made.stamp: requirements.txt requirements-demo.txt constraints.txt
	$(eval found := $(python))$(call stop_if,$(call missing,$(found)))
	$(call stop_if,$(call make_venv,$(found)))
	@touch $@

$(VENV)/demo.stamp: $(VENV)/made.stamp
	$(call stop_if,$(call install,requirements-demo.txt))
	@touch $@

# These include the demo's packages.
$(VENV)/dev.stamp: $(VENV)/made.stamp requirements-dev.txt requirements-fast.txt
	$(call stop_if,$(call install,requirements-dev.txt))
	$(if $(call install_fast),$(info No C compiler, or no headers of Python: gunicorn parses HTTP in Python here))
	@touch $(VENV)/demo.stamp $@

# Their packages do not fit beside the product's. npm runs no script of a package.
.clients/made.stamp: $(VENV)/made.stamp requirements-clients.txt requirements-clients.lock tests/clients/package-lock.json
	@$(VENV)/bin/python -m venv --clear .clients/venv
	@.clients/venv/bin/python -m pip --disable-pip-version-check --no-input --quiet install $(if $(LOCK),--require-hashes --requirement requirements-clients.lock,--requirement requirements-clients.txt)
	@cp tests/clients/package.json tests/clients/package-lock.json .clients/
	@cd .clients && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@
