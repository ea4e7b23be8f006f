#!/bin/sh
# Finds or builds what tests and demo run: etcd, kube-apiserver and kubectl; for tests also
# kube-controller-manager, the controllers of cert-manager, and foreign CRDs. Run by
# `make control-plane` (and with the word `demo` by `make demo`, for the first three only); quick when
# all is there.
#
#   1. KUBEBUILDER_ASSETS, if set
#   2. what an earlier run left under target/control-plane, if it fits go.mod
#   3. setup-envtest, if its download works; for tests only if it is installed, because go.mod names
#      what they run
#   4. go build, from tests/control-plane/go.mod: minutes the first time, then cached
#
# kube-controller-manager is in neither 1 nor 3: it is built, into target/control-plane/controllers;
# so is cert-manager, from tests/cert-manager into target/control-plane/cert-manager.
# CA_OVERLAP_CONTROL_PLANE_DIR puts the result elsewhere than target/control-plane.
set -eu

KUBERNETES=1.36.3
CERT_MANAGER=v1.21.2
PROMETHEUS_OPERATOR=v0.85.0
SETUP_ENVTEST=v0.25.1
ENVTEST_SECONDS=180
BINARIES="etcd kube-apiserver kubectl"
PACKAGES="go.etcd.io/etcd/server/v3 k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl"
CONTROLLERS="kube-controller-manager"
CONTROLLER_PACKAGES="k8s.io/kubernetes/cmd/kube-controller-manager"
CERT_MANAGER_PROGRAM="cert-manager"
VERSION_PACKAGE=k8s.io/component-base/version
LDFLAGS="-s -w -X $VERSION_PACKAGE.gitVersion=v$KUBERNETES -X $VERSION_PACKAGE.gitMajor=1 -X $VERSION_PACKAGE.gitMinor=36"

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cert_manager=$root/tests/cert-manager
out=${CA_OVERLAP_CONTROL_PLANE_DIR:-$root/target/control-plane}
work=
child=

main() {
    case "${1:-}" in
        "" | demo) ;;
        *) fail "usage: build.sh [demo]" ;;
    esac
    purpose=${1:-}
    mkdir -p "$out"
    find_binaries || with_lock find_binaries make_binaries
    [ "$purpose" != demo ] || return 0
    find_controllers || with_lock find_controllers make_controllers
    find_cert_manager || with_lock find_cert_manager make_cert_manager
    find_crds || fetch_crds
}

# FIND MAKE: makes what is not found. Two runs at once would only do the same work twice: results
# are renamed into place.
with_lock() {
    if command -v flock >/dev/null 2>&1; then
        exec 9>"$out/.lock"
        if ! flock -n 9; then
            say "another run is at work; waiting for it"
            flock 9
            if "$1"; then return 0; fi
        fi
    fi
    need_work
    "$2"
}

need_work() {
    [ -z "$work" ] || return 0
    work=$(mktemp -d "$out/.work.XXXXXX")
    trap clean EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

find_binaries() {
    if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
        for name in $BINARIES; do
            [ -x "$KUBEBUILDER_ASSETS/$name" ] ||
                fail "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no $name: complete it, or unset the variable"
        done
        say "using KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS"
        return 0
    fi
    find_built bin "$BINARIES"
}

find_controllers() {
    find_built controllers "$CONTROLLERS"
}

find_cert_manager() {
    find_built cert-manager "$CERT_MANAGER_PROGRAM"
}

# DIRECTORY NAMES
find_built() {
    for name in $2; do
        [ -x "$out/$1/$name" ] || return 1
    done
    [ "$(cat "$out/$1/.stamp" 2>/dev/null)" = "$(stamp "$1")" ] || return 1
    say "ready in ${out#"$root"/}/$1"
}

# DIRECTORY: names what its binaries were made from.
stamp() {
    case "$1" in
        cert-manager) cat "$cert_manager"/go.* "$cert_manager"/*.go | cksum ;;
        *) printf '%s %s\n' "$LDFLAGS" "$(cat "$here/go.mod" "$here/go.sum" | cksum)" ;;
    esac
}

make_binaries() {
    download_binaries || {
        command -v go >/dev/null 2>&1 ||
            fail "no Kubernetes binaries and no go: install Go 1.26 or newer, or set KUBEBUILDER_ASSETS to a directory with $BINARIES (setup-envtest makes one)"
        build "$here" "$BINARIES $KUBERNETES" "4 to 8 minutes" "$PACKAGES"
        mv "$work/bin/server" "$work/bin/etcd"
        publish bin
    }
}

make_controllers() {
    if ! command -v go >/dev/null 2>&1; then
        say "no go: without it kube-controller-manager is not built, and the tests of the keeper with real rollouts need it"
        return 0
    fi
    build "$here" "$CONTROLLERS $KUBERNETES" "2 minutes" "$CONTROLLER_PACKAGES"
    publish controllers
}

make_cert_manager() {
    if ! command -v go >/dev/null 2>&1; then
        say "no go: without it cert-manager is not built, and the tests with its controllers need it"
        return 0
    fi
    # Static, so that it also runs in an image without libraries.
    CGO_ENABLED=0 build "$cert_manager" "$CERT_MANAGER_PROGRAM $CERT_MANAGER" "2 minutes" .
    publish cert-manager
}

download_binaries() {
    bounded=
    command -v timeout >/dev/null 2>&1 && bounded="timeout $ENVTEST_SECONDS"
    envtest=$(command -v setup-envtest) || install_envtest || return 1
    say "asking setup-envtest for Kubernetes 1.36 (at most $ENVTEST_SECONDS s)"
    # shellcheck disable=SC2086 # two words on purpose
    if assets=$($bounded "$envtest" use -p path --bin-dir "$out/envtest" 1.36.x 2>"$work/log"); then
        mkdir "$work/bin"
        for name in $BINARIES; do
            cp "$assets/$name" "$work/bin/$name" || return 1
        done
        publish bin
    else
        say "setup-envtest failed ($(tail -n 1 "$work/log")); building instead"
        return 1
    fi
}

# A few seconds; a build of the control plane takes minutes.
install_envtest() {
    [ "$purpose" = demo ] && command -v go >/dev/null 2>&1 || return 1
    envtest=$root/target/tools/setup-envtest-$SETUP_ENVTEST/setup-envtest
    [ ! -x "$envtest" ] || return 0
    say "installing setup-envtest $SETUP_ENVTEST, to download the programs instead of building them"
    # shellcheck disable=SC2086 # two words on purpose
    GOBIN=$(dirname "$envtest") $bounded go install -trimpath \
        "sigs.k8s.io/controller-runtime/tools/setup-envtest@$SETUP_ENVTEST" >"$work/log" 2>&1
}

# MODULE WHAT TIME PACKAGES, into $work/bin
build() {
    say "building $2 with $(go version | cut -d ' ' -f 3)"
    say "the first time takes $3 on two cores; it is kept for later runs"
    mkdir -p "$work/bin"
    # shellcheck disable=SC2086 # words on purpose
    (cd "$1" && exec go build -v -mod=readonly -trimpath -ldflags "$LDFLAGS" -o "$work/bin/" $4) \
        >"$work/log" 2>&1 9>&- &
    child=$!
    watch_build
    wait "$child" || {
        child=
        tail -n 15 "$work/log" >&2
        fail "go build in ${1#"$root"/} failed; its last lines are above"
    }
    child=
}

# A line every 15 seconds, or one that keeps changing on a terminal.
watch_build() {
    seconds=0
    while kill -0 "$child" 2>/dev/null; do
        sleep 1
        seconds=$((seconds + 1))
        if [ -t 2 ]; then
            printf '\r%s' "control plane: $(progress)  " >&2
        elif [ $((seconds % 15)) -eq 0 ]; then
            say "$(progress)"
        fi
    done
    [ ! -t 2 ] || printf '\n' >&2
}

progress() {
    if grep -q '^go: downloading' "$work/log" && ! grep -qv '^go: ' "$work/log"; then
        what="downloading modules, $(grep -c '^go: downloading' "$work/log" || true) so far"
    else
        what="$(grep -cv '^go: ' "$work/log" || true) packages compiled"
    fi
    printf '%d:%02d elapsed, %s' $((seconds / 60)) $((seconds % 60)) "$what"
}

# DIRECTORY: it appears whole or not at all.
publish() {
    stamp "$1" >"$work/bin/.stamp"
    rm -rf "${out:?}/$1"
    mv "$work/bin" "$out/$1"
    say "ready in ${out#"$root"/}/$1"
}

find_crds() {
    [ -e "$out/crds/cert-manager-$CERT_MANAGER.yaml" ] &&
        [ -e "$out/crds/prometheus-operator-$PROMETHEUS_OPERATOR.yaml" ]
}

fetch_crds() {
    if ! command -v go >/dev/null 2>&1; then
        say "no go: without it foreign CRDs are not fetched, and the tests of overlays/cert-manager and components/prometheus need them"
        return 0
    fi
    need_work
    mkdir -p "$out/crds"
    fetch_crd_module cert-manager github.com/cert-manager/cert-manager "$CERT_MANAGER" deploy/crds '*.yaml'
    # Of the operator's kinds only those that components/prometheus uses: all are 4 MB.
    fetch_crd_module prometheus-operator github.com/prometheus-operator/prometheus-operator \
        "$PROMETHEUS_OPERATOR" example/prometheus-operator-crd \
        'monitoring.coreos.com_prometheusrules.yaml monitoring.coreos.com_servicemonitors.yaml'
    say "foreign CRDs are in ${out#"$root"/}/crds"
}

# NAME MODULE VERSION DIRECTORY FILES
fetch_crd_module() {
    [ ! -e "$out/crds/$1-$3.yaml" ] || return 0
    # Outside of any module, so that go.mod and go.sum stay as they are; the checksum database
    # or GOFLAGS of the caller decide about verification.
    (cd "$work" && GOWORK=off go mod download -json "$2@$3" >module.json) ||
        fail "cannot download $2@$3: $(grep '"Error"' "$work/module.json" || true)"
    dir=$(sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p' "$work/module.json")
    : >"$work/crds.yaml"
    for pattern in $5; do
        # shellcheck disable=SC2231 # a pattern on purpose
        for crd in "$dir/$4"/$pattern; do
            printf -- '---\n'
            cat "$crd" || fail "$2@$3 has no $crd"
        done >>"$work/crds.yaml"
    done
    rm -f "$out/crds/$1"-*.yaml
    mv "$work/crds.yaml" "$out/crds/$1-$3.yaml"
}

clean() {
    [ -z "$child" ] || kill "$child" 2>/dev/null || true
    [ -z "$work" ] || rm -rf "$work"
}

say() {
    printf 'control plane: %s\n' "$*" >&2
}

fail() {
    printf 'control plane: error: %s\n' "$*" >&2
    exit 1
}

main "$@"
