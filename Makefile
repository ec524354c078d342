# make help lists the targets.
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Coraza then keeps its hands off the disk.
TAGS := no_fs_access
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOL := $(GO) tool -modfile=tools/go.mod
# How long a fuzz target runs: what reads hostile bytes first (HTTP/1, 2 and 3, HPACK, QPACK, the
# PROXY protocol) for PARSERTIME, in make slow for LONGTIME; others so many times.
FUZZTIME ?= 20000x
PARSERTIME ?= 60s
LONGTIME ?= 30m

.PHONY: help build run test slow check allocs race fuzz fuzz-parsers fuzz-long fuzz-keep e2e conformance testssl acme bench drill-slow drill-overflow drill-chaos drill-virtual generate fmt clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

build: ## write bin/relais
	@mkdir -p bin
	@if [ ! -x bin/relais ]; then echo "building bin/relais (the first time downloads modules and takes a few minutes)"; fi
	CGO_ENABLED=0 $(GO) build $(if $(wildcard bin/relais),,-v) -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/relais ./cmd/relais

run: build ## a demo shop behind the edge, on this machine
	bin/relais up

check: ## format, vet, lint, the house's rules
	@test -z "$$($(TOOL) gofumpt -l $$(git ls-files '*.go'))" || { echo 'not formatted (make fmt):'; $(TOOL) gofumpt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(GO) test .

test: check build allocs race drill-virtual fuzz e2e acme conformance ## every lane that proves the product

allocs: ## the hot paths allocate nothing (counted without the race detector)
	$(GO) test -count=1 -run 'Alloc|Nothing' ./internal/...

race: ## unit tests with the race detector
	$(GO) test -race ./api/... ./internal/... ./demo/... ./cmd/... ./bench/... ./test/conformance/... ./test/differential ./test/proc ./test/slow

fuzz: ## each fuzz target for FUZZTIME, those of the parsers for PARSERTIME
	@tools/fuzz.sh all $(FUZZTIME) $(PARSERTIME)

fuzz-parsers: ## only the parsers' fuzz targets, for PARSERTIME
	@tools/fuzz.sh parsers $(PARSERTIME)

fuzz-long: ## the parsers' fuzz targets for LONGTIME each
	@tools/fuzz.sh parsers $(LONGTIME)

fuzz-keep: ## put found inputs that reach more code than the seeds into testdata/fuzz
	@tools/fuzz.sh keep

slow: build fuzz-long drill-slow drill-overflow drill-chaos ## what takes hours: long fuzzing, drills; run by hand

drill-slow: build ## ten thousand slow clients beside an ordinary one; nginx and HAProxy too
	$(GO) run ./test/drill/slow

drill-overflow: build ## a shop's bad days with an overflow cluster; nginx and HAProxy, told the slots, beside it (35 minutes)
	$(GO) run ./test/drill/overflow

drill-virtual: ## 200 orders and 15,000 other requests a second in virtual time, through five faults; DRILL=-scenes for a minute of each
	$(GO) test -count=1 -timeout 10m -run '^TestDrill' ./internal/edge/balance $(DRILL)

drill-chaos: build ## bad networks and kill -9 between edge and origins; nginx and HAProxy beside it (8 minutes)
	cd test/chaos && $(GO) run .

e2e: build ## the whole binary, as its users meet it
	$(GO) test -count=1 -timeout 15m ./test/e2e/...
	cd test/grpc && $(GO) test -count=1 -timeout 5m ./...
	cd test/chaos && $(GO) test -count=1 -timeout 5m ./...

conformance: build ## h2spec and ambiguous HTTP against bin/relais; scores may only improve
	$(GO) run ./test/conformance

testssl: build ## testssl.sh against a TLS listener with defaults (installs it on Debian, takes minutes)
	@command -v testssl >/dev/null || { apt-get update && apt-get install -y testssl.sh; }
	$(GO) run ./test/conformance -suite testssl

acme: ## whole edges against a real ACME authority, in the test process
	$(GO) test -count=1 -timeout 5m ./test/acme

bench: build ## side by side with nginx, HAProxy, Varnish and Caddy
	$(GO) run ./bench -install

generate: ## write what is generated
	$(GO) generate ./...

fmt: ## format
	$(TOOL) gofumpt -w $$(git ls-files '*.go')

clean: ## remove what was built
	rm -rf bin bench/.work
