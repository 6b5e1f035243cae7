# Two commands do all set-up: `make demo` shows the main job, `make test` passes the tests.
# `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(CURDIR)/target
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BIN := $(CARGO_TARGET_DIR)/$(HOST)/release
# The runtime as it is shipped. Functions that are alike lie side by side, so that an image is a sixteenth smaller: of the linkers
# only lld does so, which Rust brings for x86-64.
, := ,
DIST := cargo rustc --profile dist -p sconce-edge-runtime --bin edge-runtime$(if $(filter x86_64-%,$(HOST)), -- -C link-arg=-Wl$(,)--bp-compression-sort=both)
# The embedded Kubernetes: kubebox, kubectl, helm and what they run.
export KUBEBOX_BIN ?= $(CARGO_TARGET_DIR)/kubebox

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: setup
setup: ## Install what is missing (Debian packages) and check Rust and Go
	@e2e/setup.sh

.PHONY: kubernetes
kubernetes: setup ## Build the embedded Kubernetes (about 16 minutes the first time on 2 cores)
	@e2e/kubebox/build.sh $(KUBEBOX_BIN)

.PHONY: build
build: setup ## Build all programs of Sconce
	@cargo build --release --workspace --bins

.PHONY: demo
demo: build kubernetes ## Run the main job on the embedded Kubernetes; MNIST=DIR trains on the IDX files there
	@$(BIN)/sconce-demo up $(if $(MNIST),--mnist "$(MNIST)")

.PHONY: demo-down
demo-down: ## Remove the demo without trace
	@$(BIN)/sconce-demo down

.PHONY: check
check: setup ## Cheap checks: formatting, lints, shell
	@cargo fmt --all --check
	@cargo clippy --release --workspace --all-targets -- -D warnings
	@cargo clippy --release --workspace --all-targets --features sconce-edge-runtime/otlp,sconce-edge-runtime/strangers,sconce-collector/strangers,sconce-operator/browser -- -D warnings
	@cargo clippy --release --workspace --test cluster -- -D warnings

.PHONY: test
test: ## Run all tests: units, integration, and the e2e suite on its own Kubernetes
	@e2e/setup.sh test
	@e2e/test.sh

.PHONY: test-strangers
test-strangers: build kubernetes ## Servers, clients and readers that others wrote, from PyPI and Debian, and the embedded Kubernetes' registry: part of `make test`, too
	@e2e/setup.sh strangers
	@cargo test --release --workspace --features sconce-edge-runtime/strangers,sconce-collector/strangers --test strangers --test readers --test private

.PHONY: test-page
test-page: ## Look at the operator's page with a headless Chromium; pictures in target/tmp/page: part of `make test`, too
	@e2e/setup.sh browser
	@cargo test --release --workspace --features sconce-operator/browser --test page

.PHONY: fuzz
fuzz: setup ## Break what comes from outside at random: requests, images, artifacts, architectures; MINUTES=10 for each
	@MINUTES=$(or $(MINUTES),10) e2e/fuzz.sh

.PHONY: bench
bench: ## Time our plans and ONNX Runtime in turn, on one core (docs/performance.md); CPU=N names it
	@e2e/setup.sh bench
	@cargo build --release -p sconce-model --example against_onnx_runtime
	@taskset --cpu-list $(or $(CPU),$$(($$(nproc) - 1))) $(BIN)/examples/against_onnx_runtime

.PHONY: bench-serving
bench-serving: ## Our server and public ones in turn, on one core, asked from core 0 (docs/performance.md); CPU=N names the servers'
	@e2e/setup.sh bench
	@$(DIST)
	@cargo build --release -p sconce-edge-runtime --example against_public_servers
	@taskset --cpu-list 0 $(BIN)/examples/against_public_servers --program $(CARGO_TARGET_DIR)/$(HOST)/dist/edge-runtime --server-cpu $(or $(CPU),$$(($$(nproc) - 1)))

.PHONY: bench-plan
bench-plan: ## Time the planner on generated fleets of 10,000 nodes, and first fit in turn
	@cargo build --release --workspace --example bench_plan
	@$(BIN)/examples/bench_plan

.PHONY: bench-scale
bench-scale: build kubernetes ## The operator on hollow nodes, then a minimal one by controller-runtime: SITES=20 MODELS=5 REST=60
	@cd e2e/baseline && CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false" go build -o $(CARGO_TARGET_DIR)/scale-baseline .
	@test -d $(CARGO_TARGET_DIR)/bench-scale || $(BIN)/sconce-trainer train e2e/training.yaml --output $(CARGO_TARGET_DIR)/bench-scale
	@for program in $(BIN)/sconce-operator $(CARGO_TARGET_DIR)/scale-baseline; do \
	  $(BIN)/sconce-scale --program $$program --artifact $(CARGO_TARGET_DIR)/bench-scale --sites $(or $(SITES),20) --models $(or $(MODELS),5) --rest $(or $(REST),60); \
	done

.PHONY: bench-steps
bench-steps: ## Training steps of ours and of PyTorch in turn, on one core (docs/performance.md); CPU=N names it
	@e2e/setup.sh bench
	@cargo build --release -p sconce-trainer --example against_pytorch
	@taskset --cpu-list $(or $(CPU),$$(($$(nproc) - 1))) $(BIN)/examples/against_pytorch

.PHONY: goldens
goldens: ## Let PyTorch say anew what gradients are held against: model/tests/goldens
	@e2e/setup.sh bench
	@python3 -m venv $(CARGO_TARGET_DIR)/goldens && $(CARGO_TARGET_DIR)/goldens/bin/pip install --quiet --requirement model/tests/goldens/requirements.txt
	@$(CARGO_TARGET_DIR)/goldens/bin/python -B model/tests/goldens/make.py model/tests/goldens/goldens.json

.PHONY: bench-train
bench-train: build ## Train the seed's network on real MNIST: make bench-train MNIST=DIR
	@test -n "$(MNIST)" || { echo "bench-train: say where the IDX files are: make bench-train MNIST=DIR"; exit 2; }
	@$(BIN)/sconce-trainer train examples/digits/training.yaml --data "$(MNIST)" --output $(CARGO_TARGET_DIR)/bench-train

.PHONY: bench-mnist
bench-mnist: build ## Accuracy of ours and of PyTorch on real MNIST, nine seeds each, then with a schedule and shifts: make bench-mnist MNIST=DIR SEEDS="1 2 3"
	@test -n "$(MNIST)" || { echo "bench-mnist: say where the IDX files are: make bench-mnist MNIST=DIR"; exit 2; }
	@e2e/setup.sh bench
	@python3 -m venv $(CARGO_TARGET_DIR)/bench-mnist/python
	@$(CARGO_TARGET_DIR)/bench-mnist/python/bin/pip install --quiet --requirement trainer/examples/against_pytorch/requirements.txt
	@$(CARGO_TARGET_DIR)/bench-mnist/python/bin/python -B trainer/examples/mnist/bench.py $(BIN)/sconce-trainer "$(MNIST)" $(CARGO_TARGET_DIR)/bench-mnist $(SEEDS)

.PHONY: sizes
sizes: setup ## Build the shipped runtime with fat LTO, print its size, and that of its image: the layer that a registry keeps
	@$(DIST)
	@cd $(CARGO_TARGET_DIR)/$(HOST)/dist && mb() { awk '{printf "%.2f MB\n", $$1 / 1e6}'; } && layer() { tar --create edge-runtime | "$$@" | wc --bytes | mb; } && \
	echo "edge-runtime (static, fat LTO): $$(wc --bytes < edge-runtime | mb)" && \
	echo "its image, by gzip: $$(layer gzip -9)" && \
	if type zstd >/dev/null 2>&1; then echo "its image, by zstd: $$(layer zstd -19)"; fi
