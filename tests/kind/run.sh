#!/usr/bin/env bash
# Runs the suite (tests/cluster) on kind clusters, one Kubernetes version after the other: `run.sh`
# for all of nodes.txt, `run.sh 1.33 1.37` for some. `run.sh --check` runs the checks that need no
# container engine. Used by `make kind-test` and `make kind-check`.
#
# Environment: KIND, KUBECTL (programs), IMAGES (a directory of image archives to load), WORK (a
# directory for kubeconfig files and, after a failure, logs).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
config=$here/cluster.yaml
cluster=

main() {
    if [[ ${1:-} == --check ]]; then
        check
        return
    fi
    local versions=("$@")
    ((${#versions[@]})) || mapfile -t versions < <(versions_of)
    for version in "${versions[@]}"; do
        image_of "$version" >/dev/null
    done
    docker info >/dev/null 2>&1 ||
        fail "kind needs Docker, which does not answer: start it, or run the suite with make node-test"
    compgen -G "$IMAGES/*.tar" >/dev/null || fail "no images in $IMAGES: run make node-images"
    mkdir -p "$WORK"
    trap remove EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    local failed=()
    for version in "${versions[@]}"; do
        say "Kubernetes $version"
        run "$version" || failed+=("$version")
        remove
    done
    ((${#failed[@]} == 0)) || fail "failed on ${failed[*]}; logs are in $WORK"
    say "fine on ${versions[*]}"
}

# Runs one version. `set -e` has no effect in a condition, so every step handles its own failure.
run() {
    local version=$1
    cluster=ca-overlap-test-${version//./-}
    export KUBECONFIG=$WORK/$version.kubeconfig
    "$KIND" create cluster --name "$cluster" --config "$config" --image "$(image_of "$version")" \
        --kubeconfig "$KUBECONFIG" --wait 180s || return 1
    if load && by_hand && suite; then
        return 0
    fi
    rm -rf "${WORK:?}/$version"
    "$KIND" export logs --name "$cluster" "$WORK/$version" || true
    "$KUBECTL" get pods,events --all-namespaces -o wide >"$WORK/$version/objects.txt" 2>&1 || true
    return 1
}

load() {
    local archive
    for archive in "$IMAGES"/*.tar; do
        "$KIND" load image-archive "$archive" --name "$cluster" || return 1
    done
}

# Installs as docs/install.md says.
by_hand() {
    "$KUBECTL" apply -k "$root/manifests/overlays/kind" &&
        "$KUBECTL" -n ca-overlap rollout status deployment/ca-overlap-webhook --timeout=120s &&
        "$KUBECTL" delete -k "$root/manifests/overlays/kind"
}

suite() {
    CA_OVERLAP_TEST_KUBECONFIG=$KUBECONFIG cargo test --locked --manifest-path "$root/Cargo.toml" \
        --test cluster -- --ignored --skip long:: --test-threads=1 --nocapture
}

# Deletes the cluster of this run and no other.
remove() {
    [[ -z $cluster ]] || "$KIND" delete cluster --name "$cluster" --kubeconfig "$WORK/kubeconfig" || true
    cluster=
}

# kind validates the configuration before it looks for a container engine. With no engine on the
# PATH a valid configuration fails at the engine, and an invalid one fails earlier.
check() {
    local wrong said
    (image_of 0.0 >/dev/null 2>&1) && fail "image_of accepts an unknown version"
    for version in $(versions_of); do
        [[ $(image_of "$version") =~ ^kindest/node:v${version//./\\.}\.[0-9]+@sha256:[0-9a-f]{64}$ ]] ||
            fail "nodes.txt: the image of $version is not pinned by digest: $(image_of "$version")"
    done
    said=$(refusal "$config")
    [[ $said != *config* && $said == *'exec: "docker"'* ]] || fail "kind rejects $config: $said"
    wrong=$(mktemp -d)
    sed 's/^nodes:/nods:/' "$config" >"$wrong/cluster.yaml"
    said=$(refusal "$wrong/cluster.yaml")
    rm -rf "$wrong"
    [[ $said == *nods* ]] || fail "kind accepts an unknown field: $said"
    say "the configuration and $(versions_of | wc -w) node images are valid"
}

refusal() {
    PATH=/nonexistent "$KIND" create cluster --name ca-overlap-check --config "$1" \
        --kubeconfig /nonexistent/kubeconfig 2>&1 || true
}

versions_of() {
    sed -n 's/^\([0-9][0-9.]*\) .*/\1/p' "$here/nodes.txt"
}

image_of() {
    awk -v version="$1" '$1 == version { print $2; found = 1 } END { exit !found }' "$here/nodes.txt" ||
        fail "nodes.txt has no Kubernetes $1, only: $(versions_of | tr '\n' ' ')"
}

say() {
    printf 'kind-test: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

main "$@"
