# "make" alone prints what there is. CI runs .ci/run, which is "make check" on real Kafka and PostgreSQL.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO ?= go
# Pinned in tools/go.mod, built from source on first use.
TOOL := $(GO) tool -modfile=tools/go.mod
DATA_DIR ?= .seenby
BENCH ?= .
SEEDS ?= 10000
MINUTES ?= 30
RATE ?= 400
VERDICTS ?= 1000000,5000000,20000000,50000000
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
RELEASED := topics/testdata/released.binpb

##@ Work

.PHONY: dev
dev: ## run everything in one process; its data is in .seenby, or DATA_DIR
	$(GO) run ./cmd/seenby dev --data-dir $(DATA_DIR)

.PHONY: build
build: ## build bin/seenby
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/seenby ./cmd/seenby

.PHONY: test
test: ## run all tests, in containers where Docker answers
	$(GO) test -timeout 20m ./...

.PHONY: test-schedules
test-schedules: ## run SEEDS schedules of faults in fake time (10,000)
	$(GO) test ./internal/faulttest -run '^TestSchedules$$' -count=1 -timeout 0 -schedules.count=$(SEEDS)

.PHONY: test-mutants
test-mutants: ## show that the schedules catch every bug of a list
	$(GO) test ./internal/faulttest -run '^TestMutants' -count=1 -v -timeout 0 -mutants

.PHONY: test-faults
test-faults: $(if $(KIND)$(SEED),,test-schedules) ## those schedules, then break real brokers, database and processes for MINUTES
	$(GO) test ./internal/faulttest -run '^TestFaults$$' -count=1 -v -timeout 0 -faults.long -faults.minutes=$(MINUTES) \
	-faults.rate=$(RATE) $(if $(SEED),-faults.seed=$(SEED)) $(if $(KIND),-faults.kind='$(KIND)') $(if $(TABLE),-faults.table='$(abspath $(TABLE))')

.PHONY: bench
bench: ## run the benchmarks; BENCH is a pattern
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m ./...

.PHONY: bench-rebuild
bench-rebuild: ## rebuild from VERDICTS (1, 5, 20 and 50 million) beside what bounds it; how fresh counts are meanwhile
	SEENBY_BENCH_VERDICTS=$(VERDICTS) $(GO) test ./cmd/seenby -run '^$$' -bench '^BenchmarkRebuild$$' -benchtime 1x -timeout 3h
	$(GO) test ./cmd/seenby -run '^$$' -bench '^BenchmarkRebuildFreshness$$' -benchtime 1x -timeout 1h

.PHONY: fmt
fmt: ## format all Go files
	$(TOOL) golangci-lint fmt

##@ Check

.PHONY: check
check: check-static test ## everything that CI checks

.PHONY: check-static
check-static: check-format vet lint proto-check build check-mod ## everything but the tests

.PHONY: check-format
check-format:
	@files=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	[[ -z $$files ]] || { echo "not formatted, run make fmt:"; echo "$$files"; exit 1; }

.PHONY: vet
vet:
	$(GO) vet ./...

.PHONY: lint
lint: ## run golangci-lint
	$(TOOL) golangci-lint run ./...

.PHONY: check-mod
check-mod:
	$(GO) mod tidy -diff

##@ Events

.PHONY: proto
proto: ## generate topics/eventspb from topics/events.proto
	$(TOOL) buf generate

.PHONY: proto-check
proto-check: ## lint events.proto, compare it with the last release and with the generated code
	$(TOOL) buf lint
	@if [[ -e $(RELEASED) ]]; then set -x; $(TOOL) buf breaking --against $(RELEASED); \
	else echo "$(RELEASED) is not there: nothing was released, so nothing can break"; fi
	@generated=$$(mktemp -d) && trap 'rm -rf "$$generated"' EXIT && \
	$(TOOL) buf generate -o "$$generated" && \
	diff -r "$$generated/topics/eventspb" topics/eventspb || { echo "topics/eventspb is old, run make proto"; exit 1; }

.PHONY: proto-release
proto-release: ## part of a release: from now on nothing that is in events.proto may change
	mkdir -p $(dir $(RELEASED))
	$(TOOL) buf build -o $(RELEASED)

##@ Containers

.PHONY: images
images: ## make Kafka and PostgreSQL images where none can be pulled
	images/build

.PHONY: compose-up
compose-up: ## start Kafka, PostgreSQL and seenby, and print the API key
	$(COMPOSE) up -d --build
	@$(COMPOSE) logs --no-color setup

.PHONY: compose-down
compose-down: ## stop them; the data stays, unless VOLUMES=1
	$(COMPOSE) down $(if $(VOLUMES),--volumes)

##@ Other

.PHONY: clean
clean: ## remove what was built; data stays
	rm -rf bin dist

.PHONY: help
help: ## print this
	@awk 'BEGIN { FS = ":.*## " } \
	/^##@ / { printf "\n%s\n", substr($$0, 5) } \
	/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
