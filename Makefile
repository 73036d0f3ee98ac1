# Two commands: `make run` and `make test`. Plain `make` lists all.

GO      ?= go
KERNEL  ?= cloud
# More flags for `make run`, such as ARGS='-c 2 -m 1G'.
ARGS    ?=
# Inputs for each fuzz target in `make test`; rounds of `make soak`.
FUZZ    ?= 3000
ROUNDS  ?= 20
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
STATIC  := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
IMAGE    = .cache/kernels/$(KERNEL)/vmlinuz
INITRD   = .cache/guest/initrd-$(KERNEL).cpio

export CGO_ENABLED = 0

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help build run test style unit fuzz emulated onkvm onkvm-tests boots images boot-tests guest kernels lab deps soak bench-boot bench-blk bench-net clean

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

# The limits leave room for a busy host; on two quiet cores all of it takes about 25 minutes.
# $(call suite,NAME,SECONDS,COMMANDS) runs a part of the tests within its time.
define suite
	@echo "=== $(1): at most $(2) s"; began=$$(date +%s); \
	timeout -k 10 $(2) sh -ec '$(3)'; status=$$?; took=$$(($$(date +%s) - began)); \
	if [ $$status = 124 ]; then echo "=== $(1): FAILED, not done after $(2) s"; exit 1; fi; \
	if [ $$status != 0 ]; then echo "=== $(1): FAILED after $$took s"; exit 1; fi; \
	echo "=== $(1): ok, $$took s"
endef

test: deps style unit fuzz images emulated onkvm boots ## run all tests, each suite within a time of its own
	@echo "=== all tests passed"

style: ## gofmt and go vet
	$(call suite,style,180, \
		unformatted=$$(gofmt -l $$(git ls-files "*.go")); \
		if [ -n "$$unformatted" ]; then echo "gofmt: $$unformatted"; exit 1; fi; \
		$(GO) vet ./...)

# Everything that needs no other kernel than the host's, with the race detector
# (which needs cgo). The tests of kvm and machine use /dev/kvm directly.
unit: ## the tests of all packages, with the race detector
	$(call suite,unit,400, \
		CGO_ENABLED=1 $(GO) test -race -timeout 390s $$($(GO) list ./... | grep -v "^vmm/test/"))

fuzz: ## each fuzz target for FUZZ inputs
	$(call suite,fuzz,400,GO=$(GO) sh test/fuzz.sh $(FUZZ)x)

# The lab itself, and the initramfs as QEMU boots it: if these fail, what the
# next suite says is worth nothing.
emulated: ## the lab and the guest, without vmm
	$(call suite,emulated,240,VMM_EMULATED=1 $(GO) test -timeout 230s ./test/fetch/... ./test/guest/... ./test/lab/...)

# What of the unit tests needs KVM, where it works as on hardware. The command's
# are without the race detector: they start it some hundred times.
onkvm: lab ## the tests that run small guests on KVM
	$(call suite,onkvm,900, \
		$(MAKE) --no-print-directory onkvm-tests; \
		bin/lab -timeout 400s -again -jobs test/onkvm.json)

onkvm-tests:
	CGO_ENABLED=1 $(GO) test -race -c -o bin/kvm.test ./kvm
	CGO_ENABLED=1 $(GO) test -race -c -o bin/machine.test ./machine
	$(GO) test -c -o bin/vmm.test ./cmd/vmm

# Real kernels in vmm, where KVM works: here, or in the lab.
boots: build lab images ## real kernels in vmm
	$(call suite,boots,1900, \
		cd test/boot; ../../bin/lab -timeout 480s -batch 5 -tests ../../bin/boot.test)

# What the boots need: kernels, initramfs, a Debian, the tests and their tool in the guest.
images: ## what the guests need: kernels, initramfs, a Debian, test programs
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
