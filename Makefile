# The commands people type. CONTRIBUTING.md says what each is for.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help build release image test bench bench-cluster bench-micro bench-record lint demo demo-down crds rfcs bug-classes demo-packages test-packages image-packages bench-packages count-packages

CARGO ?= cargo
TOR ?= weft
KEEP ?= 0
IMAGE ?= weft.network/weft:$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
DAEMONS := weftd weft-controller weftctl
TARGET = $(or $(CARGO_TARGET_DIR),target)
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# Programs that run on any host's C library, or none. With --target, the flags are for the programs and not for build scripts.
STATIC = RUSTFLAGS='-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs' $(CARGO) build --target $(HOST)

# What the lab needs, and the daemons that are its ToRs; as program:package.
DEMO_TOOLS := ip:iproute2 ping:iputils-ping nft:nftables nsenter:util-linux
COUNT_TOOLS := valgrind:valgrind
TEST_TOOLS := $(DEMO_TOOLS) $(COUNT_TOOLS) traceroute:traceroute jq:jq tshark:tshark bird:bird2 vtysh:frr gobgpd:gobgpd gobgp:gobgpd bgpctl:openbgpd exabgp:exabgp \
	containerd:containerd runc:runc podman:podman conmon:conmon crun:crun bgpdump:bgpdump busybox:busybox-static systemd-analyze:systemd iptables:iptables /usr/lib/cni/portmap:containernetworking-plugins
IMAGE_TOOLS := nft:nftables jq:jq umoci:umoci
BENCH_TOOLS := ip:iproute2 nft:nftables nsenter:util-linux /usr/lib/cni/ptp:containernetworking-plugins bird:bird2 vtysh:frr gobgpd:gobgpd gobgp:gobgpd
ifeq ($(TOR),bird)
DEMO_TOOLS += bird:bird2
else ifeq ($(TOR),frr)
DEMO_TOOLS += vtysh:frr
endif

# Installs the packages of those programs that are not there. The lab starts the daemons that it needs itself: policy-rc.d keeps the
# packages from starting theirs on this machine.
define install
missing=(); \
for tool in $(1); do PATH="$$PATH:/usr/sbin:/sbin" command -v "$${tool%%:*}" >/dev/null || missing+=("$${tool##*:}"); done; \
if (( $${#missing[@]} )); then \
	echo "Installs $${missing[*]}"; \
	policy=/usr/sbin/policy-rc.d; \
	if [[ ! -e $$policy ]]; then printf '#!/bin/sh\nexit 101\n' >$$policy; chmod +x $$policy; trap 'rm -f /usr/sbin/policy-rc.d' EXIT; fi; \
	apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
fi
endef

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build all programs
	$(CARGO) build --workspace --bins

release: ## Build what is shipped, all static, into target/dist
	$(STATIC) --release --package weft-controller --bins
	$(STATIC) --profile plugin --package weft-cni --bin weft-cni
	install -D --mode 755 --target-directory $(TARGET)/dist $(DAEMONS:%=$(TARGET)/$(HOST)/release/%) $(TARGET)/$(HOST)/plugin/weft-cni
	.ci/plugin $(TARGET)/dist/weft-cni
	@stat --printf '%n\t%s bytes\n' $(TARGET)/dist/*

image: image-packages release ## Make an image of it that container runtimes can import, target/dist/weft.tar (IMAGE=NAME:TAG)
	.ci/image $(TARGET)/dist $(IMAGE) $(TARGET)/dist/weft.tar

demo: demo-packages build ## Raise a two-rack fabric, check the promises, cut a cable, take it down (TOR=weft|bird|frr, KEEP=1)
	@TOR=$(TOR) KEEP=$(KEEP) $(TARGET)/debug/weft-demo

demo-down: ## Remove a demo that KEEP=1 left up
	@$(CARGO) run --quiet --package weft-integration --bin weft-demo -- down

# The tests of the lab run the programs, which cargo builds for their own crates' tests only.
test: test-packages build ## Run every test
	$(CARGO) test --workspace --no-fail-fast
ifdef KUBEBUILDER_ASSETS
	$(CARGO) test --workspace --test kubernetes --test kubernetes_fabric --test kubernetes_load_balancer --test kubernetes_security --test kubernetes_services -- --ignored
else
	@echo 'skipped: the tests against a real Kubernetes API server, as KUBEBUILDER_ASSETS names no folder with etcd, kube-apiserver and kubectl'
endif
	.ci/counts

bench: bench-packages ## Measure weftd beside BIRD, FRR, GoBGP and the kernel, weft-cni and BFD likewise, half an hour (BENCH_SPEAKERS="--fraction 10", BENCH=--quick)
	$(STATIC) --profile plugin --package weft-cni --bin weft-cni --package weft-integration --bin weft-bench
	$(STATIC) --release --package weft-controller --bins --package weft-integration --bin weft-bench-bfd --bin weft-bench-speakers
	@$(TARGET)/$(HOST)/release/weft-bench-speakers --results $(TARGET)/bench/results.json $(BENCH_SPEAKERS)
	@$(TARGET)/$(HOST)/release/weft-bench-speakers --checks all
	@$(TARGET)/$(HOST)/plugin/weft-bench --results $(TARGET)/bench/results.json $(BENCH)
	@$(TARGET)/$(HOST)/release/weft-bench-speakers draw $(TARGET)/bench/results.json docs
	@$(TARGET)/$(HOST)/release/weft-bench-bfd --results $(TARGET)/bench/bfd.json --docs docs $(BENCH)

bench-cluster: ## Measure weftd in a large cluster of generated objects, with the Kubernetes API server of KUBEBUILDER_ASSETS (BENCH="NODES SERVICES")
	$(STATIC) --release --package weft-controller --bins --package weft-integration --bin weft-bench-cluster
	@$(TARGET)/$(HOST)/release/weft-bench-cluster $(BENCH)

bench-micro: ## Measure decoding, encoding, the decision and the like each by itself (BENCH="a part of a name")
	$(CARGO) bench --package weft-bgp --bench wire --bench rib --package weft-routing --bench netlink --bench engine -- $(BENCH)

bench-record: count-packages ## Count instructions, allocations and memory anew, as what make test compares with (.ci/counts.bounds)
	.ci/counts record

lint: ## Check format, warnings, links of the docs, the dependencies between the rooms, generated files
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --quiet
	.ci/rooms
	.ci/generated

crds: ## Write manifests/base/crds.yaml anew from the Rust types
	$(CARGO) run --quiet --package weft-controller --example crds >manifests/base/crds.yaml.new
	mv manifests/base/crds.yaml.new manifests/base/crds.yaml

rfcs: ## Write docs/rfcs.md anew from what tests say that they prove
	$(CARGO) run --quiet --package weft-integration --example rfcs >docs/rfcs.md.new
	mv docs/rfcs.md.new docs/rfcs.md

bug-classes: ## Write the table in docs/robustness.md anew from the tests
	.ci/bug-classes >docs/robustness.md.new
	mv docs/robustness.md.new docs/robustness.md

demo-packages:
	@$(call install,$(DEMO_TOOLS))

test-packages:
	@$(call install,$(TEST_TOOLS))

image-packages:
	@$(call install,$(IMAGE_TOOLS))

count-packages:
	@$(call install,$(COUNT_TOOLS))

bench-packages:
	@$(call install,$(BENCH_TOOLS))
