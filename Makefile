# gatesync: what one types. Needs Go, make and git; `make proto` also protoc.
# Everything else is pinned in go.mod and tools/go.mod and fetched by Go.

SHELL       := /bin/bash -o pipefail
TAGS        := hashicorpmetrics
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || cat VERSION)
LDFLAGS     := -s -w -X main.version=$(VERSION)
GOBUILD     := CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags $(TAGS) -ldflags '$(LDFLAGS)'
TOOLS       := $(CURDIR)/.tools
# The race detector needs a C compiler; without one the same tests run plain.
RACE        := $(if $(shell command -v gcc cc),-race)
# Tests with real processes wait most of the time: so many at once keep two cores busy.
WAITING     ?= 4
# What the next version of the log's format is tested for (raftstore/newest_next.go).
NEXT        := Format|Version|Snapshot|Machine|Authority
IN_PROCESS   = $(shell go list -tags $(TAGS) ./... | grep -v -e '/integration$$' -e '/integration/nfs$$')

.PHONY: build demo test test-unit test-integration test-nfs fuzz soak soak-steps soak-sim soak-fuzz soak-procs bench-nfs check tidy fmt vet staticcheck lint proto-check vuln reproducible proto bench tools clean

build: ## one static binary: bin/gatesync
	$(GOBUILD) -o bin/gatesync ./cmd/gatesync

demo: build ## three nodes on this machine, real files, watch it work
	bin/gatesync demo

test: ## all tests; the in-process ones under the race detector, the log's also as of the next version
	@{ go test -json $(RACE) -tags $(TAGS) -timeout 30m $(TESTFLAGS) $(IN_PROCESS); \
	   go test -json -tags $(TAGS),gatesync_nextformat $(TESTFLAGS) -run '$(NEXT)' ./raftstore; \
	   go test -json -tags $(TAGS) -count=1 -timeout 60m -parallel $(WAITING) $(TESTFLAGS) ./integration; \
	   go test -json -tags $(TAGS) -count=1 -timeout 60m $(TESTFLAGS) ./integration/nfs; \
	   cd tools && go test -json ./...; } 2>&1 | go -C tools run ./testsum $(SUMFLAGS)

test-unit: ## the in-process tests alone
	@go test -json $(RACE) -tags $(TAGS) -timeout 30m $(TESTFLAGS) $(IN_PROCESS) 2>&1 | go -C tools run ./testsum $(SUMFLAGS)

test-integration: ## real processes alone; TESTFLAGS='-run X', GATESYNC_LONG=1 for the full lengths
	go test -v -tags $(TAGS) -count=1 -timeout 60m -parallel $(WAITING) $(TESTFLAGS) ./integration

test-nfs: ## real NFS mounts, in a guest kernel, alone; TESTFLAGS='-run X'
	GATESYNC_NFS_MUST=1 go test -v -tags $(TAGS) -count=1 -timeout 30m $(TESTFLAGS) ./integration/nfs

# Every target that `go test -list` finds, one after another: a new one cannot be forgotten.
# Whatever fails an input has it written to testdata. A failure that has not is one of
# go test itself at the end of its time, on a busy machine (golang/go#51484).
FUZZTIME    ?= 10s
fuzz: ## all fuzz targets, FUZZTIME=10s each; FUZZ=regexp chooses
	@set -e; packages=$$(go list -tags $(TAGS) -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); \
	for p in $$packages; do \
	  found=$$(go test -tags $(TAGS) -list '^Fuzz' $$p); \
	  for f in $$(echo "$$found" | { grep -E '^Fuzz.*$(FUZZ)' || true; }); do \
	    echo "fuzz: $$p $$f"; \
	    one="go test -tags $(TAGS) -run ^$$ -fuzz ^$$f\$$ -fuzztime $(FUZZTIME) -fuzzminimizetime 10s $(TESTFLAGS) $$p"; \
	    $$one || { [ -z "$$(git status --porcelain -- '*/testdata/fuzz')" ] && echo "fuzz: nothing was found, so once more" && $$one; } || exit 1; \
	  done; \
	done

soak: soak-steps soak-sim soak-fuzz soak-procs ## the long forms of the tests that search, GATESYNC_SOAK=<duration> (an hour) of real processes

soak-steps: ## a power cut and a failure at every step of a change; as root
	GATESYNC_LONG=1 go test -tags $(TAGS) -count=1 -timeout 0 -run 'PowerCut|StepFails' $(TESTFLAGS) ./syncer ./blob ./raftstore

soak-fuzz: ## all fuzz targets, a minute each, and a million bad messages
	GATESYNC_SOAK=1m go test -tags $(TAGS) -count=1 -run 'Hostile' ./node
	$(MAKE) fuzz FUZZTIME=1m

SEEDS ?= 10000
soak-sim: ## simulated clusters; SEEDS=n, FROM=n the first of them
	go test -tags $(TAGS) -count=1 -timeout 0 ./integration/sim -run Simulated -from $(or $(FROM),1) -seeds $(SEEDS) -most 10

soak-procs: ## of it, real processes: kills, partitions, disks, at random; as root for all of it
	GATESYNC_SOAK=$${GATESYNC_SOAK:-1h} go test -v -tags $(TAGS) -count=1 -timeout 0 -run 'Soak$$' $(TESTFLAGS) ./integration

bench: ## the figures, beside the peers that this machine has
	go test -tags $(TAGS) -count=1 -timeout 60m -run '^$$' -bench . -benchtime 1x $(TESTFLAGS) ./integration
	go test -tags $(TAGS) -count=1 -run '^$$' -bench "Carriers|Deltas" -benchtime 1x $(TESTFLAGS) ./fallback

bench-nfs: ## the figures of a shared mount, in a guest kernel; GATESYNC_LONG=1 for 20,000 files
	GATESYNC_NFS_MUST=1 go test -v -tags $(TAGS) -count=1 -timeout 30m -run '^$$' -bench . $(TESTFLAGS) ./integration/nfs

check: tidy fmt vet staticcheck lint proto-check reproducible vuln ## everything a machine can say about the source

tidy:
	go mod tidy -diff
	go -C tools mod tidy -diff

fmt:
	@files=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -s -l); \
	if [ -n "$$files" ]; then echo "gofmt -s -w these files:"; echo "$$files"; exit 1; fi

vet:
	go vet -tags $(TAGS) ./...
	go -C tools vet ./...

staticcheck: tools
	$(TOOLS)/staticcheck -tags $(TAGS) ./...

lint: ## the house rules: layers, doc.go, length of files
	go -C tools run ./lint $(CURDIR)

proto: tools ## generate the protobuf code anew
	PATH=$(TOOLS):$$PATH protoc -I proto --go_out=. --go_opt=module=github.com/gatesync/gatesync \
	  --go-grpc_out=. --go-grpc_opt=module=github.com/gatesync/gatesync proto/gatesync/v1/*.proto

# The comment that names protoc's own version differs from machine to machine.
proto-check: tools
	@if ! command -v protoc >/dev/null; then echo "proto-check: no protoc here, the generated code was not compared"; exit 0; fi; \
	set -e; d=$$(mktemp -d); trap 'rm -rf $$d' EXIT; \
	PATH=$(TOOLS):$$PATH protoc -I proto --go_out=$$d --go_opt=module=github.com/gatesync/gatesync \
	  --go-grpc_out=$$d --go-grpc_opt=module=github.com/gatesync/gatesync proto/gatesync/v1/*.proto; \
	for f in $$d/proto/gatesync/v1/*.go; do \
	  diff -u -I '^//.*protoc  *v' proto/gatesync/v1/$$(basename $$f) $$f || { echo "run: make proto"; exit 1; }; \
	done

# The same bytes, whatever the directory.
reproducible: build
	@set -e; d=$$(mktemp -d); trap 'rm -rf $$d' EXIT; \
	git ls-files -co --exclude-standard | tar -cf - -T - | tar -xf - -C $$d; \
	(cd $$d && $(GOBUILD) -o $$d/again ./cmd/gatesync); \
	cmp bin/gatesync $$d/again || { echo "two builds of one source differ"; exit 1; }

# govulncheck exits 3 for a finding that our code reaches, 1 where it could not work.
vuln: tools
	@out=$$($(TOOLS)/govulncheck -tags $(TAGS) ./... 2>&1); rc=$$?; \
	case $$rc in 0) echo "vuln: no known vulnerability is reached";; 3) echo "$$out"; exit 1;; \
	*) echo "vuln: not checked, the database cannot be reached: $$(echo "$$out" | tail -1)";; esac

tools: $(TOOLS)/stamp
$(TOOLS)/stamp: tools/go.mod tools/go.sum
	GOBIN=$(TOOLS) go -C tools install tool
	@touch $@

clean:
	rm -rf bin $(TOOLS)
