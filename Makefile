# The commands of graft. `make test` and `make demo` are all that a newcomer needs; each sets up what it lacks.
#   GRAFT_DEPS         where libtorch is unpacked (default .deps)
#   CMAKE_PREFIX_PATH  a libtorch of your own
#   BUILD              build folder (default build)     JOBS  compile jobs
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.PHONY: help setup build test demo demo-images demo-decoder lint fresh asan interop bench-text clean

export GRAFT_DEPS ?= $(CURDIR)/.deps
export CCACHE_SLOPPINESS := pch_defines,time_macros,include_file_mtime,include_file_ctime
BUILD ?= build
# One job per core, but no more than memory carries: a file that includes libtorch takes 2.5 GB to compile.
JOBS ?= $(shell awk -v cores=$$(nproc) '/MemAvailable/ {jobs = int($$2 / 2500000)} \
          END {print jobs < 1 ? 1 : jobs < cores ? jobs : cores}' /proc/meminfo)
PREFIX_PATH := $(if $(CMAKE_PREFIX_PATH),-DCMAKE_PREFIX_PATH="$(CMAKE_PREFIX_PATH)")

help:
	@echo 'make build       build/graft, after fetching what it needs'
	@echo 'make test        builds and runs every test'
	@echo 'make demo        a real transfer, from data to predictions, in a few minutes (DEMO_ARGS=--short: a tiny one)'
	@echo 'make demo-images the same for images: Fashion-MNIST, first without labels (DEMO_ARGS=--short: a tiny one)'
	@echo 'make demo-decoder  a LLaMA from nothing: prose, then Python, with samples (DEMO_ARGS=--short: a tiny one)'
	@echo 'make lint        format, clang-tidy on what changed, include arrows, rustfmt'
	@echo 'make asan        the tests that need no libtorch, under the address and undefined-behaviour sanitizers'
	@echo 'make fresh       make test and make demo on a new Debian 12, as root and as a user'
	@echo 'make interop     saved models in transformers, and one cache with huggingface_hub'
	@echo 'make bench-text  graft beside transformers on one schedule (DATA=folder of JSONL files)'
	@echo 'make clean       removes the build folders; downloads stay'

setup:
	@scripts/setup

build: setup
	@cmake --preset release -B $(BUILD) -DGRAFT_DEPS="$$(realpath -m "$$GRAFT_DEPS")" $(PREFIX_PATH) --log-level=WARNING
	@cmake --build $(BUILD) -j $(JOBS)

test: build
	@ctest --test-dir $(BUILD) --output-on-failure -j2

demo: build
	@scripts/demo $(DEMO_ARGS)

demo-images: build
	@scripts/demo_images $(DEMO_ARGS)

demo-decoder: build
	@scripts/demo_decoder $(DEMO_ARGS)

lint:
	@scripts/lint

fresh:
	@scripts/fresh

asan: setup
	@cmake --preset asan-ubsan --log-level=WARNING
	@cmake --build build-asan -j $(JOBS)
	@LSAN_OPTIONS=suppressions=$(CURDIR)/cmake/lsan.supp ctest --test-dir build-asan --output-on-failure -j2

interop: build
	@scripts/interop

bench-text: build
	@bench/text_schedule.py --data "$${DATA:?give DATA=, a folder with train, validation and test.jsonl}" $(BENCH_ARGS)

clean:
	@rm -rf $(BUILD) build-asan build-dev build-lint
