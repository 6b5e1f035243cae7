#!/usr/bin/env bash
# Installs the Debian packages that are missing, saying which and why; checks for Rust and Go. `setup.sh bench`, `setup.sh
# strangers` and `setup.sh browser` install what these need beside; `setup.sh test` tries to.
set -euo pipefail

declare -A why=(
  [gcc]="links Rust and cgo programs"
  [g++]="builds C++ parts of dependencies"
  [make]="runs the Makefile"
  [pkg-config]="finds libseccomp for runc"
  [libseccomp-dev]="runc filters system calls with it"
  [iproute2]="lays the links between nodes"
  [nftables]="kube-proxy writes its rules with it"
  [iptables]="the CNI portmap plugin needs it"
  [util-linux]="enters the nodes' namespaces"
  [ca-certificates]="HTTPS to module and package registries"
)
install() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed$' || missing+=("$package")
  done
  if ((!${#missing[@]})); then return; fi
  for package in "${missing[@]}"; do echo "setup: installing $package: ${why[$package]}"; done
  if ((EUID != 0)); then
    echo "setup: not root. Install them yourself: apt-get install ${missing[*]}" >&2
    return 1
  fi
  apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install "${!why[@]}"
why[python3-venv]="runs packages from PyPI: ONNX Runtime and other peers, and clients that others wrote"
why[chromium]="looks at the operator's page"
why[mosquitto]="the broker that the tests of collected samples ask"
why[mosquitto-clients]="says what the broker's subscribers hear"
why[docker-registry]="a registry that asks for a password"
case ${1:-} in
  "") ;;
  bench) install python3-venv ;;
  strangers) install python3-venv mosquitto mosquitto-clients docker-registry ;;
  browser) install chromium ;;
  # The tests say so where it is missing.
  test)
    for package in python3-venv chromium mosquitto mosquitto-clients docker-registry; do
      install "$package" || echo "setup: going on without $package" >&2
    done
    ;;
  *) echo "setup: $1 is not known; known are bench, strangers, browser and test" >&2; exit 2 ;;
esac
command -v cargo >/dev/null || { echo "setup: cargo is missing. Install Rust 1.95 or newer with rustup, then try again" >&2; exit 1; }
command -v go >/dev/null || { echo "setup: go is missing. Install Go 1.26 or newer, then try again" >&2; exit 1; }
