#!/usr/bin/env bash
# Runs the property tests of all that reads bytes from outside, with new seeds again and again, for MINUTES each. What fails is
# printed as small as it gets, with the input: keep it as a test of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
export PROPTEST_CASES=${PROPTEST_CASES:-20000} RUST_BACKTRACE=0

while read -r package tests; do
	built=$(cargo test --release -p "$package" --lib --no-run --message-format=json | grep -o '"executable":"[^"]*"' | tail -1)
	program=$(cut -d'"' -f4 <<<"$built")
	SECONDS=0
	runs=0
	while ((SECONDS < MINUTES * 60)); do
		"$program" -q "$tests" >"$CARGO_TARGET_DIR/fuzz.log" 2>&1 || { cat "$CARGO_TARGET_DIR/fuzz.log"; exit 1; }
		runs=$((runs + 1))
	done
	echo "$package $tests: $runs runs of $PROPTEST_CASES cases and more for each test, $SECONDS s, nothing broken"
done <<-TARGETS
	sconce-edge-runtime decode::tests
	sconce-edge-runtime decode::elements
	sconce-model preprocess::tests
	sconce-model artifact::tests::spoilt
	sconce-model architecture::tests
TARGETS
