# Everything here prepares itself: git, make and Python >= 3.11 with its venv module are enough.
#   make demo     a folder becomes a project, against the emulator on this machine
#   make test     format, lint, types and the tests that need no privileges
#   make check    the tests that need root, system packages or minutes
#   make soak     what takes hours: every pair of crashes, an hour of faults
#   make format   put the sources into their form
#   make generate write the example configuration and its JSON Schema anew
# PYTHON=/path/to/python3.12 chooses the interpreter.

.DEFAULT_GOAL := test
.PHONY: demo test check soak format generate check-packages

# The first that is new enough and can make virtual environments; python3 otherwise, so that its lack is told below.
ifndef PYTHON
PYTHON := $(or $(shell for python in python3.13 python3.12 python3.11 python3; do \
    $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
    && echo $$python && break; done),python3)
endif

# Most tests wait for the service, so that more of them than there are cores run at a time.
WORKERS := 8

# The stamps carry the version: after an upgrade of Python the environment is made anew.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
RUNTIME := .venv/runtime-$(VERSION).stamp
DEV := .venv/dev-$(VERSION).stamp
SWIFT := .venv/swift-$(VERSION).stamp
# Twice quiet: errors only.
INSTALL := -m pip install --quiet --quiet --disable-pip-version-check --no-input
PIP := .venv/bin/python $(INSTALL)

define venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
    echo "Python 3.11 or newer is needed, and $(PYTHON) is not: sudo apt-get install python3 python3-venv, or name yours by make PYTHON=/path/to/python" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
    echo "python3-venv is missing: sudo apt-get install python3-venv" >&2; exit 1; }
@echo "Preparing .venv with $(PYTHON) (once, about a minute)"
@.venv/bin/python -c 'import sys, pip; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' 2>/dev/null \
    || $(PYTHON) -m venv --clear .venv
endef

$(RUNTIME): pyproject.toml
	$(venv)
	@$(PIP) --editable .
	@touch $@

$(DEV): pyproject.toml
	$(venv)
	@$(PIP) --editable '.[dev]'
	@touch $@ $(RUNTIME)

# OpenStack Swift for the tests of S3, in an environment of its own: what it is made of must not meet what we are made of.
$(SWIFT): tests/cloud/swift_requirements.txt | $(DEV)
	@echo "Preparing OpenStack Swift in .venv/swift (once)"
	@$(PYTHON) -m venv --clear .venv/swift
	@.venv/swift/bin/python $(INSTALL) --requirement $<
	@touch $@

demo: $(RUNTIME)
	@.venv/bin/pix4d-watcher demo

test: $(DEV)
	.venv/bin/ruff format --check --quiet
	.venv/bin/ruff check --quiet
	.venv/bin/mypy
	.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal -m 'not check and not soak'

# The last of them one at a time: containers, and what a service holds in memory, measured with nothing beside it.
check: $(DEV) $(SWIFT) check-packages
	.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal -m 'check and not soak' --ignore tests/check --ignore tests/scale
	.venv/bin/python -m pytest -m check tests/check tests/scale

soak: $(DEV) check-packages
	.venv/bin/python -m pytest -s -m soak --timeout 0

format: $(DEV)
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

generate: $(RUNTIME)
	.venv/bin/python -m pix4d_watcher.config config

# What the tests marked `check` need from Debian: a real systemd in a container, mounts, processes, and faults of disks, calls, clocks and
# networks; the last two are for OpenStack Swift.
PACKAGES := ca-certificates dbus iproute2 mount procps python3-venv systemd systemd-container udev util-linux \
    bindfs e2fsprogs faketime fuse3 nftables strace liberasurecode-dev memcached

check-packages:
	@missing=$$(for package in $(PACKAGES); do \
	    dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || echo $$package; done); \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ]; then \
	    echo "Installing" $$missing; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    apt="apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3"; install="$$apt install -y --no-install-recommends $$missing"; \
	    $$install >/dev/null 2>&1 \
	    || { dpkg --force-confold --configure -a >/dev/null 2>&1; for try in 1 2 3; do $$apt update >/dev/null && break; sleep 20; done; $$install >/dev/null; }; \
	elif [ -n "$$missing" ]; then \
	    echo "Some tests will be skipped: sudo apt-get install" $$missing; \
	fi
