#!/usr/bin/env bash
# All tests, the cheap ones first. The e2e suite starts and stops a Kubernetes of its own, beside a demo's.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${CARGO_TARGET_DIR:=$PWD/target}" "${KUBEBOX_BIN:=$CARGO_TARGET_DIR/kubebox}"
export CARGO_TARGET_DIR KUBEBOX_BIN
programs=$CARGO_TARGET_DIR/$(rustc -vV | sed -n 's/^host: //p')/release
began=$SECONDS
# Clients that others wrote come from PyPI, a browser from Debian.
features=sconce-edge-runtime/otlp,sconce-edge-runtime/strangers,sconce-collector/strangers,sconce-operator/browser
work=$(mktemp -d)
kubernetes=
clean() {
  # All that it has begun is of its process group.
  if [[ $kubernetes ]]; then kill -- "-$kubernetes" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap clean EXIT
export SCONCE_STRANGERS_UNTRIED=$work/untried
step() { printf '\n== %s (%d s so far)\n' "$1" $((SECONDS - began)); }

step "formatting"
cargo fmt --all --check
# It waits for downloads most of the time, and is built beside Rust; what it says is kept until then.
set -m
e2e/kubebox/build.sh "$KUBEBOX_BIN" </dev/null >"$work/kubernetes" 2>&1 &
kubernetes=$!
set +m
# Programs and tests in one go: tests ask more of some dependencies, and apart these would be compiled twice.
step "programs and tests: Rust; the embedded Kubernetes beside it"
cargo build --release --workspace --features "$features" --bins --tests --test cluster
# A client of others pulls from its registry.
step "embedded Kubernetes"
built=0
wait "$kubernetes" || built=$?
kubernetes=
cat "$work/kubernetes"
((built == 0)) || exit "$built"
step "units and integration: Rust; clients that others wrote; the page in a browser"
# No documentation has tests, and benchmarks are what `make check` looks at: each would take minutes to build.
cargo test --release --workspace --features "$features" --tests
step "units: kubebox"
(cd e2e/kubebox && CGO_ENABLED=0 GOFLAGS=-trimpath go test ./internal/...)

step "a small model for the suite"
stop() {
  status=$?
  if ((status)); then
    echo "== state of the cluster when the suite failed" >&2
    local kubectl=("$KUBEBOX_BIN/kubectl" --kubeconfig /var/lib/kubebox/sconce-test/kubeconfig)
    "${kubectl[@]}" get em,epl,es,en,emv,ed,deploy,pods -A -o wide >&2 || true
    "${kubectl[@]}" logs -n sconce-system deploy/sconce-operator --tail=60 >&2 || true
  fi
  "$KUBEBOX_BIN/kubebox" down --name sconce-test || true
  rm -rf "$work"
  exit "$status"
}
trap stop EXIT
"$programs/sconce-trainer" train e2e/training.yaml --output "$work/artifact" --held-out "$work/held-out"
step "the suite, on its own Kubernetes"
# Links are measured there: the disk is done with what the builds wrote.
sync
"$KUBEBOX_BIN/kubebox" down --name sconce-test >/dev/null
"$KUBEBOX_BIN/kubebox" up --name sconce-test --config e2e/suite.yaml --api-port 26443 --registry-port 25000 --grace 12
# Its errors say in words what is wrong, at their end.
RUST_LIB_BACKTRACE=0 SCONCE_E2E_TRAINING=$work cargo test --release --workspace --features "$features" --test cluster -- --test-threads=1 --nocapture
step "done"
if [[ -e $SCONCE_STRANGERS_UNTRIED ]]; then cat "$SCONCE_STRANGERS_UNTRIED"; fi
