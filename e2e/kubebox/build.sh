#!/bin/bash
# Builds kubebox and every program that it runs beside itself into one folder.
#
#   ./build.sh OUTDIR      prints a line per step with its seconds; Go's caches skip what is done
#
# One set of flags for everything (no cgo but for runc, -trimpath, no tags for kubebox): a build or a test with
# other flags compiles all of Kubernetes a second time, ten minutes on two cores.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 OUTDIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"
# No commit is stamped in: each one would link everything anew, and a checkout of another owner would not build.
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"

need() { # need PROGRAM-OR-TEST PACKAGE
	if ! eval "$1" >/dev/null 2>&1; then missing="$missing $2"; fi
}
missing=
need "command -v gcc" gcc
need "command -v pkg-config" pkg-config
need "pkg-config --exists libseccomp" libseccomp-dev
need "test -f /usr/lib/$(uname -m)-linux-gnu/libc.a" libc6-dev
if ! command -v go >/dev/null; then
	echo "build.sh: Go is missing: install the version that go.mod names" >&2
	exit 1
fi
if [ -n "$missing" ]; then
	echo "build.sh: missing Debian packages: apt-get install -y$missing" >&2
	exit 1
fi

step() { # step NAME COMMAND...
	local started=$SECONDS
	"${@:2}"
	printf '%5ds  %s\n' $((SECONDS - started)) "$1"
}

# tools MODULE TAGS: every program that tools/MODULE/go.mod lists as a tool.
tools() { go -C "tools/$1" build -tags "$2" -ldflags '-s -w' -o "$out/" tool; }

runc() { CGO_ENABLED=1 tools runc "seccomp netgo osusergo"; }

# Unstamped, every component calls itself v0.0.0-master, and clients refuse or warn.
kubebox() {
	local version major minor stamp
	version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
	IFS=. read -r major minor _ <<<"${version#v}"
	stamp=k8s.io/component-base/version
	go build -o "$out/kubebox" -ldflags "-s -w \
-X $stamp.gitVersion=$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor -X $stamp.gitCommit=kubebox \
-X $stamp.gitTreeState=clean -X $stamp.buildDate=1970-01-01T00:00:00Z \
-X k8s.io/client-go/pkg/version.gitVersion=$version" .
	ln -sf kubebox "$out/kubectl"
}

step pause gcc -Os -static -s -o "$out/pause" pause/pause.c
step "CNI plugins" tools cni ""
step runc runc
step containerd tools containerd "no_btrfs no_devmapper no_zfs no_aufs"
step CoreDNS go -C tools/coredns build -ldflags '-s -w' -o "$out/coredns" .
step helm tools helm ""
step kubebox kubebox
