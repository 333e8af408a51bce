# Every target does all its own set-up; see scripts/with-tools for what it may
# install. Written for GNU make 3.81 too, which macOS still ships.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The version that `otpq --version` prints. A checkout without git is "devel".
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# `make test PKG=./worker/... ARGS='-run TestDrain -v'` runs a part.
PKG ?= ./...
ARGS ?=
# Empty it (`make test RACE=`) to test without a C compiler.
RACE ?= -race
# Most tests wait: for a Redis that is away, for a worker to be taken for dead.
PARALLEL ?= 8
# How long `make fuzz` gives each fuzz target.
FUZZTIME ?= 10s
# `make bench SUITE=drain ROUNDS=1 N=2000 PEERS=otpq,asynq` runs a part, and writes
# no page. QUIET is how long to wait for a machine that nobody else uses.
SUITE ?=
ROUNDS ?= 3
N ?= 0
PEERS ?=
QUIET ?= 1m
# `make microbench COUNT=10 ARGS='-bench Seal' PKG=./tasks`
COUNT ?= 6

GOLANGCI := go tool -modfile=internal/tools/go.mod golangci-lint

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: dev
dev: ## run everything in one process, with nothing installed
	go run -buildvcs=false -pgo=off ./cmd/otpq dev

.PHONY: check
check: lint vet build test cover ## what CI runs: lint, vet, build, test, cover

.PHONY: test
test: ## all tests, with the race detector, a real redis-server and a real Chromium
	scripts/with-tools redis-server chromium promtool $(if $(RACE),cc) -- $(if $(RACE),env CGO_ENABLED=1) go test -pgo=off $(RACE) -parallel $(PARALLEL) $(ARGS) $(PKG)
	$(if $(filter ./...,$(PKG)),go test -C deploy/kubernetes/test ./...)

# `make chaos CHAOS_SEED=7` repeats what went wrong in that run; 0 draws a seed.
# A campaign of CHAOS_ROWS follows, whose feeders and workers are killed CHAOS_KILLS times.
# CHAOS_PLANT=ledger, ack, deadline, checkpoint or requeue plants a bug that has to be
# found then; CHAOS_ARGS=-chaos.race builds the workers with the race detector.
CHAOS_FOR ?= 3m
CHAOS_SEED ?= 0
CHAOS_ROWS ?= 100000
CHAOS_KILLS ?= 16
CHAOS_PLANT ?=
CHAOS_ARGS ?=

.PHONY: chaos
chaos: ## kill, cut and freeze everything for CHAOS_FOR=3m, then audit what became of thousands of messages
	scripts/with-tools redis-server -- go test -count=1 -v -timeout 0 ./internal/chaos -run 'TestNothing|TestEachRow' \
		-chaos.for=$(CHAOS_FOR) -chaos.seed=$(CHAOS_SEED) -chaos.rows=$(CHAOS_ROWS) -chaos.kills=$(CHAOS_KILLS) \
		-chaos.plant=$(CHAOS_PLANT) $(CHAOS_ARGS)

.PHONY: lint
lint: ## golangci-lint, at the version internal/tools/go.mod pins
	$(GOLANGCI) run
	cd deploy/kubernetes/test && go tool -modfile=../../../internal/tools/go.mod golangci-lint run

.PHONY: fmt
fmt: ## format the code as lint wants it
	$(GOLANGCI) fmt

.PHONY: vet
vet: ## go vet
	go vet ./...
	go vet -C deploy/kubernetes/test ./...

.PHONY: build
build: ## the static binary bin/otpq
	CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w -X main.buildVersion=$(VERSION)' -o bin/otpq ./cmd/otpq

.PHONY: cover
cover: ## coverage of the core packages; fails below 85 %
	scripts/with-tools redis-server -- scripts/cover 85 tasks status providers worker

.PHONY: fuzz
fuzz: ## every fuzz target for a short while (FUZZTIME=10s)
	scripts/with-tools redis-server -- scripts/fuzz $(FUZZTIME)

.PHONY: bench
bench: ## compare with other queues: SUITE=drain ROUNDS=1 N=2000 is quick
	scripts/with-tools redis-server postgres node -- scripts/bench -suite '$(or $(SUITE),all)' -rounds $(ROUNDS) -n $(N) \
		-peers '$(PEERS)' -quiet $(QUIET) $(if $(SUITE),,-docs docs/benchmarks.md)

.PHONY: bench-check
bench-check: ## lint, vet and test the benchmark, which is a module of its own
	cd bench && go tool -modfile=../internal/tools/go.mod golangci-lint run
	go vet -C bench ./...
	scripts/with-tools redis-server -- go test -C bench ./...

.PHONY: microbench
microbench: ## Go benchmarks for benchstat, into bin/microbench.txt
	mkdir -p bin
	scripts/with-tools redis-server -- go test -run '^$$' -bench . -benchmem -count $(COUNT) $(ARGS) \
		$(if $(filter ./...,$(PKG)),./tasks ./status ./enqueue ./worker,$(PKG)) | tee bin/microbench.txt

.PHONY: profile
profile: ## record what the compiler optimizes otpq for; commit what changes
	scripts/with-tools redis-server -- go test -pgo=off -run '^$$' -bench 'Worker/http' -benchtime 100000x \
		-cpuprofile cmd/otpq/default.pgo -o bin/worker.test ./worker
	rm bin/worker.test

.PHONY: clean
clean: ## remove what make made
	rm -rf bin bench/node_modules
