# Each target makes its own virtual environment in .venv/ and gets what it needs by itself.

PYTHON ?= python3
VERSIONS := 3.10 3.11 3.12 3.13
VENV := .venv
PIP_OPTIONS := --quiet --disable-pip-version-check
MKDOCS := NO_MKDOCS_2_WARNING=1 $(VENV)/check/bin/mkdocs
UNITS := $(VERSIONS:%=unit-on-%)

# Nothing but the environment of a target may provide its modules.
unexport PYTHONPATH
unexport VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help demo flask-ingest django-orders test test-unit test-oldest test-pythons check docs docs-serve simulate \
    mutants fuzz faults stack containers bench clean rabbitmq azurite chromium promtool screenshots $(UNITS)

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo/.ready ## back-fill a rate-limited store three ways and compare (FULL=1: every city)
	@$(VENV)/demo/bin/python examples/backfill/demo.py

flask-ingest: $(VENV)/flask-ingest/.ready ## watch an ingest under a capacity that you move, in a browser
	@$(VENV)/flask-ingest/bin/python examples/flask_ingest/run.py

django-orders: $(VENV)/django-orders/.ready ## place orders in a Django shop, and operate its batcher in the admin
	@$(VENV)/django-orders/bin/python examples/django_orders/run.py

test: ## test the built wheel: every layer, every server that is here
	@$(MAKE) --no-print-directory --jobs=2 $(VENV)/test/.ready rabbitmq azurite chromium promtool test-pythons
	@rm -rf $(VENV)/wheel
	@$(VENV)/test/bin/pip wheel $(PIP_OPTIONS) --no-deps --wheel-dir $(VENV)/wheel .
	@$(VENV)/test/bin/pip install $(PIP_OPTIONS) --no-deps --force-reinstall $(VENV)/wheel/*.whl
	@TEST_INSTALLED=1 $(VENV)/test/bin/pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

test-unit: $(VENV)/test-unit/.ready ## test without any server, in seconds
	@$(VENV)/test-unit/bin/pytest tests/unit

test-oldest: $(VENV)/test-oldest/.ready rabbitmq azurite chromium promtool ## test on the oldest supported Celery, Kombu and redis-py
	@$(VENV)/test-oldest/bin/pytest

test-pythons: $(UNITS) ## run the unit tests on the other supported Pythons that are here

# What pytest says comes in one piece: others may run beside it. What takes long there is the engine
# in simulated time: the same on each Python, and tested on the main one.
$(UNITS): unit-on-%:
	@python=$$(PYENV_VERSION=$* python$* -c 'import sys; print(sys.executable)' 2>/dev/null) \
	    || { echo "Python $* is not here and is left out"; exit 0; }; \
	[ "$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != $* ] || exit 0; \
	$(MAKE) --no-print-directory $(VENV)/python$*/.ready PYTHON="$$python" || exit 1; \
	said=$$($(VENV)/python$*/bin/pytest --quiet --no-header -m "not long" tests/unit 2>&1); status=$$?; \
	printf 'Python %s, unit tests:\n%s\n' $* "$$said"; exit $$status

simulate: $(VENV)/test-unit/.ready ## run 10,000 schedules with faults on the memory store (STORE=redis; SEED= replays one)
	@cd tests && ../$(VENV)/test-unit/bin/python -m simulation.run --store $(or $(STORE),memory) \
	    $(if $(SEED),--seed $(SEED)) $(if $(SCHEDULES),--schedules $(SCHEDULES))

mutants: $(VENV)/test-unit/.ready ## break the engine on purpose and see that the simulation notices each time
	@cd tests && ../$(VENV)/test-unit/bin/python -m simulation.mutants

faults: $(VENV)/test-unit/.ready rabbitmq ## kill real processes, count what is lost (MINUTES=40, KILLS=1000)
	@cd tests && $(CURDIR)/$(VENV)/test-unit/bin/python -m faults \
	    --minutes $(or $(MINUTES),$(if $(KILLS),1000,3)) --kills $(or $(KILLS),0) --directory $(CURDIR)/.faults

check: $(VENV)/check/.ready ## check format, lint, types, and that the documentation builds
	@$(VENV)/check/bin/ruff format --check .
	@$(VENV)/check/bin/ruff check .
	@$(VENV)/check/bin/mypy --strict celery_batcher tests/typing/api.py
	@$(MKDOCS) build --quiet --strict

docs: $(VENV)/check/.ready ## build the documentation into site/; a dead link is an error
	@$(MKDOCS) build --quiet --strict && echo "site/index.html"

docs-serve: $(VENV)/check/.ready ## show the documentation while you write it
	@$(MKDOCS) serve

fuzz: $(VENV)/test-unit/.ready rabbitmq ## send 100,000 damaged messages through every kind of lane
	@$(VENV)/test-unit/bin/python tests/fuzz/campaign.py --seed $(or $(SEED),1)

stack: ## start docker/compose.yaml: workers, beat, a producer, Flower, Prometheus, Grafana (BROKER=rabbitmq)
	@docker compose -f docker/compose.yaml $(if $(BROKER),-f docker/compose.$(BROKER).yaml) up --build --remove-orphans

containers: $(VENV)/test/.ready ## build and run the images of docker/ on podman, on stand-ins for their bases (root on Debian)
	@tests/docker/stand_ins.sh build
	@$(VENV)/test/bin/pytest tests/docker/containers.py

bench: $(VENV)/bench/.ready $(VENV)/celery-batches/.ready ## measure against plain Celery and celery-batches
	@CELERY_BATCHES_PYTHON=$(CURDIR)/$(VENV)/celery-batches/bin/python \
	    $(VENV)/bench/bin/python benchmarks/run.py

screenshots: $(VENV)/test-unit/.ready chromium ## take the pictures of docs/flower.md from a system under load
	@cd tests && ../$(VENV)/test-unit/bin/python flower_screenshots.py ../docs/images

clean: ## remove the environments and everything built
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

rabbitmq:
	@if command -v rabbitmq-server >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing rabbitmq-server"; \
	    mkdir -p $(VENV); \
	    { apt-get update && DEBIAN_FRONTEND=noninteractive \
	        apt-get install -y --no-install-recommends rabbitmq-server; } >$(VENV)/apt.log 2>&1 \
	        || { echo "apt-get failed:"; tail -n 5 $(VENV)/apt.log; }; \
	else \
	    echo "rabbitmq-server is not on the PATH and only root on Debian can get it here:" \
	        "its tests are left out unless it is found elsewhere"; \
	fi

# For tests of pages; Playwright drives the system's own. Two apt-get at once would not do.
chromium: | rabbitmq
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing chromium"; \
	    mkdir -p $(VENV); \
	    { apt-get update && DEBIAN_FRONTEND=noninteractive \
	        apt-get install -y --no-install-recommends chromium; } >$(VENV)/apt-chromium.log 2>&1 \
	        || { echo "apt-get failed:"; tail -n 5 $(VENV)/apt-chromium.log; }; \
	else \
	    echo "chromium is not on the PATH and only root on Debian can get it here:" \
	        "its tests are left out unless it is found elsewhere"; \
	fi

# Prometheus' checker of rules, taken out of Debian's package: no service is installed.
promtool: | rabbitmq chromium
	@if command -v promtool >/dev/null || [ -x $(VENV)/promtool/usr/bin/promtool ]; then :; \
	elif command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then \
	    echo "Unpacking promtool"; \
	    mkdir -p $(VENV)/promtool; \
	    { cd $(VENV)/promtool && { apt-get download prometheus \
	        || { apt-get update && apt-get download prometheus; }; } \
	        && dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb; } >$(VENV)/apt-promtool.log 2>&1 \
	        || { echo "apt-get failed:"; tail -n 5 $(VENV)/apt-promtool.log; }; \
	else \
	    echo "promtool is not on the PATH, and only Debian's package of Prometheus has it here:" \
	        "its tests are left out"; \
	fi

# The emulator of Azure Storage.
azurite:
	@if command -v azurite-blob >/dev/null || [ -x $(VENV)/azurite/node_modules/.bin/azurite-blob ]; then :; \
	elif command -v npm >/dev/null; then \
	    echo "Installing azurite"; \
	    mkdir -p $(VENV)/azurite; \
	    npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite 'azurite@^3.31' >$(VENV)/npm.log 2>&1 \
	        || { echo "npm failed:"; tail -n 5 $(VENV)/npm.log; }; \
	else \
	    echo "npm is not on the PATH, and azurite comes with it: its tests are left out"; \
	fi

# What goes into each environment. All but `test` see the checkout; `test` gets the wheel on top.
$(VENV)/demo/.ready: PACKAGES = -e '.[demo,embedded]'
$(VENV)/flask-ingest/.ready: PACKAGES = -e '.[flask,embedded]'
$(VENV)/django-orders/.ready: PACKAGES = -e '.[django,metrics,embedded]'
$(VENV)/test/.ready: PACKAGES = -e '.[test,embedded]'
$(VENV)/test-unit/.ready: PACKAGES = -e '.[test,embedded]'
$(VENV)/test-oldest/.ready: PACKAGES = -e '.[test,embedded]' celery==5.5.0 kombu==5.5.2 redis==5.0.4
$(VENV)/check/.ready: PACKAGES = -e '.[dev,embedded]'
$(VENV)/bench/.ready: PACKAGES = -e '.[bench,embedded]'
$(VENV)/celery-batches/.ready: PACKAGES = celery-batches 'celery[redis]'
# One process uses it: compiling what it does not import would be for nothing.
$(VENV)/python%/.ready: PACKAGES = --no-compile -e '.[unit,embedded]'

$(VENV)/%/.ready: pyproject.toml
	@echo "Preparing $(@D)"
	@rm -rf $(@D)
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install $(PIP_OPTIONS) $(PACKAGES)
	@touch $@
