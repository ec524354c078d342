# make help lists the targets.
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Coraza then keeps its hands off the disk, and WebP and AVIF are written by what is built in.
TAGS := no_fs_access,nodynamic
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOL := $(GO) tool -modfile=tools/go.mod
# How long a fuzz target runs: what reads hostile bytes first (HTTP/1, 2 and 3, HPACK, QPACK, the
# PROXY protocol) for PARSERTIME, in make slow for LONGTIME; others so many times.
FUZZTIME ?= 20000x
PARSERTIME ?= 60s
LONGTIME ?= 30m
UNITS := ./api/... ./internal/... ./demo/... ./cmd/... ./bench/... ./test/conformance/... ./test/differential ./test/netlab ./test/proc ./test/slow ./test/crash/... ./test/fleet

.PHONY: help build run test slow check allocs waf waf-long race fuzz fuzz-parsers fuzz-long fuzz-keep e2e browser conformance testssl acme bench bench-cache bench-waf drill-flood drill-tenants drill-slow drill-overflow drill-chaos drill-virtual crash-cache crash-usage test-packet test-control test-terraform generate fmt clean

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
	$(GO) vet -tags $(TAGS) ./internal/edge/image
	$(TOOL) staticcheck ./...
	$(GO) test .

test: check build allocs race waf drill-virtual fuzz e2e browser acme conformance ## every lane that proves the product

allocs: ## the hot paths allocate nothing (counted without the race detector)
	@tools/test.sh -count=1 -tags $(TAGS) -run "Alloc|Nothing" ./internal/...

waf: ## all regression tests of the Core Rule Set through screen and engine, at each paranoia level
	$(GO) test -count=1 -timeout 40m -run 'TestVerdicts|TestOverlays' -v ./internal/edge/waf -args -full
	$(GO) test -count=1 -run TestBestFitIsTheEnginesTable ./internal/edge/waf/screen

waf-long: ## as many made requests as MADE through screen and engine (1.2 million take an hour of CPU)
	$(GO) test -count=1 -timeout 10h -run TestMade -v ./internal/edge/waf/screen -args -made $(or $(MADE),1200000)

race: ## unit tests with the race detector
	@tools/test.sh -race -timeout 25m -tags $(TAGS) $(UNITS)

test-control: ## the control plane's rooms, over SQLite and PostgreSQL (installs it on Debian)
	$(GO) test -race -count=1 -timeout 15m -v ./internal/control/store
	$(GO) test -race -count=1 -timeout 15m ./internal/control/...

test-terraform: ## the Terraform provider, with OpenTofu against a control plane (the first time builds OpenTofu, minutes)
	cd terraform && $(GO) vet ./... && $(GO) test -count=1 -timeout 25m ./...

fuzz: ## each fuzz target for FUZZTIME, those of the parsers for PARSERTIME
	@tools/fuzz.sh all $(FUZZTIME) $(PARSERTIME)

fuzz-parsers: ## only the parsers' fuzz targets, for PARSERTIME
	@tools/fuzz.sh parsers $(PARSERTIME)

fuzz-long: ## the parsers' fuzz targets for LONGTIME each
	@tools/fuzz.sh parsers $(LONGTIME)

fuzz-keep: ## put found inputs that reach more code than the seeds into testdata/fuzz
	@tools/fuzz.sh keep

slow: build fuzz-long drill-flood drill-tenants drill-slow drill-overflow drill-chaos ## what takes hours: long fuzzing, drills; run by hand

drill-flood: build ## twenty times the requests from ten thousand addresses, buyers in between; nginx and HAProxy beside it (30 minutes)
	$(GO) run ./test/drill/flood

drill-tenants: build ## one organization's site is flooded, the visitors of another's wait; nginx beside it (5 minutes)
	$(GO) run ./test/drill/tenants

drill-slow: build ## ten thousand slow clients beside an ordinary one; nginx and HAProxy too
	$(GO) run ./test/drill/slow

drill-overflow: build ## a shop's bad days with an overflow cluster; nginx and HAProxy, told the slots, beside it (35 minutes)
	$(GO) run ./test/drill/overflow

drill-virtual: ## 200 orders and 15,000 other requests a second in virtual time, through five faults; DRILL=-scenes for a minute of each
	$(GO) test -count=1 -timeout 10m -run '^TestDrill' ./internal/edge/balance $(DRILL)

drill-chaos: build ## bad networks and kill -9 between edge and origins; nginx and HAProxy beside it (8 minutes)
	cd test/chaos && $(GO) run .

crash-cache: build ## kill -9 of the cache's log in files under writes, 200 times, and damage, and of a whole edge, 50 times; nginx, Varnish and Traffic Server beside it (12 minutes)
	$(GO) run ./test/crash/cache -program bin/relais -install

crash-usage: ## kill -9 of what counts use and of what takes it in, 100 times; each count must be counted once (a minute)
	$(GO) run ./test/crash/usage

e2e: build ## the whole binary, as its users meet it
	@tools/test.sh -count=1 -timeout 15m ./test/e2e/...
	@tools/test.sh -count=1 -timeout 5m ./test/drill/flood
	cd test/grpc && $(GO) test -count=1 -timeout 5m ./...
	cd test/chaos && $(GO) test -count=1 -timeout 5m ./...

browser: build ## the edge's own pages in Chromium, with and without scripts; SCREENSHOTS=DIR keeps pictures
	@cd test/browser && ../../tools/test.sh -count=1 -timeout 10m ./...

conformance: build ## h2spec and ambiguous HTTP against bin/relais; scores may only improve
	$(GO) run ./test/conformance

testssl: build ## testssl.sh against a TLS listener with defaults (installs it on Debian, takes minutes)
	@command -v testssl >/dev/null || { apt-get update && apt-get install -y testssl.sh; }
	$(GO) run ./test/conformance -suite testssl

acme: ## whole edges against a real ACME authority, in the test process
	@tools/test.sh -count=1 -timeout 5m ./test/acme

test-packet: ## the packet filter's numbers, beside nftables (root)
	@command -v ip >/dev/null || { apt-get update && apt-get install -y iproute2; }
	$(GO) test -count=1 -timeout 10m -run '^TestNumbers$$' ./internal/packet -numbers

bench: build ## side by side with nginx, HAProxy, Varnish and Caddy
	$(GO) run ./bench -install

bench-cache: build ## hits beside S3-FIFO, W-TinyLFU and Varnish, purges, the index at 65 million objects (1.1 GB), CPU beside nginx and Varnish (12 minutes)
	$(GO) run ./bench/cachetrace
	$(GO) run ./bench/cachetrace -live bin/relais
	$(GO) run ./bench/cachepurge
	$(GO) run ./bench/cacheindex -objects 65000000
	$(GO) run ./bench -install -case hit1k,hit64k,disk1k,disk64k

bench-waf: build ## the firewall: cost beside Coraza, hostile traffic, 10,000 overlays, nginx with ModSecurity over the wire, verdicts (15 minutes)
	$(GO) run -tags $(TAGS) ./bench/waf -install

generate: ## write what is generated (the packet filter wants clang, llvm and libbpf-dev)
	$(GO) generate ./...

fmt: ## format
	$(TOOL) gofumpt -w $$(git ls-files '*.go')

clean: ## remove what was built
	rm -rf bin bench/.work
