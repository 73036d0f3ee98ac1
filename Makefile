# Two commands: `make run` and `make test`. Plain `make` lists all.

GO      ?= go
KERNEL  ?= cloud
# More flags for `make run`, such as ARGS='-c 2 -m 1G'.
ARGS    ?=
# Inputs for each fuzz target in `make test`; rounds of `make soak`.
FUZZ    ?= 3000
ROUNDS  ?= 2
# The version of staticcheck, which is built by itself and is not in go.mod.
STATICCHECK := v0.8.2
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
STATIC  := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
IMAGE    = .cache/kernels/$(KERNEL)/vmlinuz
INITRD   = .cache/guest/initrd-$(KERNEL).cpio

export CGO_ENABLED = 0

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help build run test style unit fuzz emulated onkvm onkvm-tests boots compile images boot-tests guest kernels lab deps soak bench-boot bench-blk bench-net clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## build bin/vmm, static
	$(GO) build $(STATIC) -o bin/vmm ./cmd/vmm

run: deps build lab guest ## boot a stock kernel to a shell (KERNEL=cloud, generic or cpu; ARGS=flags of vmm run)
	bin/lab -i -- bin/vmm run --kernel $(IMAGE) --initrd $(INITRD) $(ARGS)

guest: ## build the initramfs for KERNEL
	$(GO) run ./guest/mkinitrd $(KERNEL)

kernels: ## fetch all kernels into .cache
	$(GO) run ./test/fetch

lab: ## build bin/lab, which runs a command where KVM works (docs/lab.md)
	$(GO) build $(STATIC) -o bin/lab ./test/lab

deps: ## install the programs of the host that are missing, by apt
	@sh test/deps.sh

# How much longer each suite and each wait in a test may take than on two quiet
# cores. Limits are there to find what hangs; continuous integration has one for
# all of it as well (.ci/run).
TIME ?= $(if $(CI),2,3)
export VMM_TIME = $(TIME)
# $(call times,SECONDS) is so many seconds, times TIME.
times = $(shell awk 'BEGIN { print int($(1) * $(TIME)) }')s

# Added up, its suites take about 34 minutes on two cores with nothing else to do, downloads included.
# $(call suite,NAME,SECONDS,COMMANDS) runs a part of the tests within SECONDS
# times TIME, and says what was slow.
suite = @bin/suite $(1) $(2) sh -ec '$(3)'

test: deps bin/suite compile style unit fuzz images emulated onkvm boots ## run all tests, each suite within a time of its own (TIME=3 times what two quiet cores need)
	@echo "=== all tests passed"

.PHONY: bin/suite
bin/suite:
	@$(GO) build $(STATIC) -o bin/suite ./test/suite

# What the next suites run: how long this takes depends on what the cache holds.
compile: bin/suite
	$(call suite,compile,900, \
		$(GO) build ./...; \
		CGO_ENABLED=1 $(GO) build -race ./...)

style: bin/suite ## gofmt, go vet and staticcheck
	$(call suite,style,240, \
		unformatted=$$(gofmt -l $$(git ls-files "*.go")); \
		if [ -n "$$unformatted" ]; then echo "gofmt: $$unformatted"; exit 1; fi; \
		$(GO) vet ./...; \
		$(GO) run honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK) ./...)

# Everything that needs no other kernel than the host's, with the race detector
# (which needs cgo). The tests of kvm and machine use /dev/kvm directly.
unit: bin/suite ## the tests of all packages, with the race detector
	$(call suite,unit,400, \
		CGO_ENABLED=1 $(GO) test -race -timeout $(call times,390) $$($(GO) list ./... | grep -v "^vmm/test/"))

fuzz: bin/suite ## each fuzz target for FUZZ inputs
	$(call suite,fuzz,400,GO=$(GO) sh test/fuzz.sh $(FUZZ)x)

# The lab itself, and the initramfs as QEMU boots it: if these fail, what the
# next suite says is worth nothing.
emulated: bin/suite ## the lab and the guest, without vmm
	$(call suite,emulated,240,VMM_EMULATED=1 $(GO) test -timeout $(call times,230) ./test/fetch/... ./test/guest/... ./test/lab/...)

# What of the unit tests needs KVM, where it works as on hardware. The command's
# are without the race detector: they start it some hundred times.
onkvm: bin/suite lab ## the tests that run small guests on KVM
	$(call suite,onkvm,900, \
		$(MAKE) --no-print-directory onkvm-tests; \
		bin/lab -timeout $(call times,400) -again -jobs test/onkvm.json)

onkvm-tests:
	CGO_ENABLED=1 $(GO) test -race -c -o bin/kvm.test ./kvm
	CGO_ENABLED=1 $(GO) test -race -c -o bin/machine.test ./machine
	$(GO) test -c -o bin/vmm.test ./cmd/vmm

# Real kernels in vmm, where KVM works: here, or in the lab.
boots: bin/suite build lab images ## real kernels in vmm
	$(call suite,boots,1900, \
		cd test/boot; ../../bin/lab -timeout $(call times,900) -batch 20 -tests ../../bin/boot.test)

# What the boots need: kernels, initramfs, a Debian, the tests and their tool in the guest.
images: bin/suite ## what the guests need: kernels, initramfs, a Debian, test programs
	$(call suite,images,600,$(MAKE) --no-print-directory boot-tests)

boot-tests:
	$(GO) run ./guest/mkinitrd cloud cpu generic
	$(GO) run ./test/distro
	$(GO) build $(STATIC) -o bin/guesttool ./test/boot/tool
	$(GO) build $(STATIC) -o bin/telnetd ./guest/telnetd
	$(GO) test -c -o bin/boot.test ./test/boot

soak: export VMM_SOAK = 1
soak: build lab boot-tests onkvm-tests ## long counts: 10,000 pauses, fuzzing, a MiB over the serial port, ROUNDS times the boots
	cd machine && ../bin/lab -timeout 1800s -- ../bin/machine.test -test.v -test.run Pause
	cd test/boot && ../../bin/lab -tsc -timeout 1800s -- ../../bin/boot.test -test.v -test.run TestPauseClocks </dev/null
	GO=$(GO) sh test/fuzz.sh 60s
	cd test/boot && for i in $$(seq $(ROUNDS)); do ../../bin/lab -timeout 1800s -batch 4 -tests ../../bin/boot.test </dev/null || exit 1; done

bench-boot: ## how long a guest takes to its first line, beside QEMU and gokvm (docs/bench.md)
	$(GO) run ./test/bench boot

bench-blk: ## how fast a guest's disk is, beside QEMU and gokvm (docs/bench.md)
	$(GO) run ./test/bench blk

bench-net: ## how fast a guest's network is, beside QEMU (docs/bench.md)
	$(GO) run ./test/bench tap
	$(GO) run ./test/bench user

clean: ## remove what was built; the downloads stay (rm -r .cache removes them)
	rm -rf bin .cache/guest .cache/lab
