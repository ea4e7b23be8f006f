#!/usr/bin/env bash
# Runs the suite (tests/cluster) on kind clusters of three nodes.
#
#   run.sh             on the newest Kubernetes version of nodes.txt
#   run.sh VERSION…    on these, such as 1.33, one after the other
#   run.sh all         on all, with the tests that take long
#   run.sh --check     checks what can be checked without a container engine
#
# The node images are those of nodes.txt: pulled where a Docker engine answers that reaches their
# registry, otherwise built here. Used by `make kind-test`, `kind-test-full` and `kind-check`.
#
# Environment: KIND, KUBECTL (programs), KIND_VERSION, IMAGES (a directory of image archives to
# load), WORK (a directory for images, kubeconfig files and, after a failure, logs), KIND_NODES
# (registry or local, instead of the choice), KIND_TESTS (arguments for the suite,
# otherwise all tests but those of long).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
config=$here/cluster.yaml
cluster=

main() {
    case ${1:-} in
        --check) check ;;
        --inside) shift && inside "$@" ;;
        *) prepare "$@" ;;
    esac
}

# Finds or builds the node images, then runs the rest with a container engine.
prepare() {
    local nodes settings= versions=("$@") version
    nodes=$(source_of_nodes)
    case "$*" in
        all) mapfile -t versions < <(versions_of "$nodes") ;;
        "") versions=("$(versions_of "$nodes" | sed -n 1p)") ;;
    esac
    for version in "${versions[@]}"; do
        image_of "$nodes" "$version" >/dev/null
    done
    compgen -G "$IMAGES/*.tar" >/dev/null || fail "no images in $IMAGES: run make node-images"
    if [[ $nodes == local ]]; then
        say "node images: built here"
        for version in "${versions[@]}"; do
            "$here/node/build.sh" "$(image_of local "$version")"
        done
    else
        say "node images: from their registry"
    fi
    docker info >/dev/null 2>&1 || settings=$("$here/settings.sh")
    "$here/engine.sh" run "$0" --inside "$nodes" "${1:-newest}" "${versions[@]}"
    # An engine of our own and nodes that are built here leave the machine as it was.
    [[ -z $settings ]] || diff <(echo "$settings") <("$here/settings.sh") >&2 ||
        fail "the settings of the machine above have changed"
}

# Says where the node images come from: registry or local.
source_of_nodes() {
    case ${KIND_NODES:-} in
        registry | local) echo "$KIND_NODES" ;;
        "")
            if docker info >/dev/null 2>&1 &&
                docker pull --quiet "$(image_of registry "$(versions_of registry | sed -n 1p)")" >&2; then
                echo registry
            else
                echo local
            fi
            ;;
        *) fail "KIND_NODES is $KIND_NODES, but must be registry or local" ;;
    esac
}

# SOURCE WHICH VERSIONS…
inside() {
    local nodes=$1 which=$2 version tests failed=()
    shift 2
    mkdir -p "$WORK"
    exec 9>>"$WORK/run.lock"
    flock --nonblock 9 || fail "another run uses $WORK"
    trap remove EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    read -ra tests <<<"${KIND_TESTS:---skip long::}"
    [[ $which != all ]] || tests=(--skip long::delays)
    for version in "$@"; do
        say "Kubernetes $version"
        run "$nodes" "$version" "$config" "${tests[@]}" || failed+=("$version")
        remove
    done
    if [[ $which == all ]]; then
        say "Kubernetes $1, with the kubelet's defaults"
        sed '/syncFrequency/d' "$config" >"$WORK/defaults.yaml"
        run "$nodes" "$1" "$WORK/defaults.yaml" long::delays || failed+=("$1 with the kubelet's defaults")
        remove
    fi
    ((${#failed[@]} == 0)) || fail "failed on ${failed[*]}; logs are in $WORK"
    say "fine on $*"
}

# SOURCE VERSION CONFIGURATION TESTS…
# `set -e` has no effect in a condition, so every step handles its own failure.
run() {
    local nodes=$1 version=$2 config=$3 name begin=$SECONDS image
    shift 3
    name=ca-overlap-test-${version//./-}
    image=$(node_image "$nodes" "$version") || return 1
    if "$KIND" get clusters --quiet | grep -qx "$name"; then
        say "there is a cluster $name, of another run; to remove it: kind delete cluster --name $name"
        return 1
    fi
    cluster=$name
    export KUBECONFIG=$WORK/$version.kubeconfig KIND_CLUSTER_NAME=$name
    begin=$SECONDS
    "$KIND" create cluster --retain --config "$config" --image "$image" --kubeconfig "$KUBECONFIG" --wait 180s &&
        "$KUBECTL" wait --for=condition=Ready nodes --all --timeout=180s &&
        say "the nodes are ready after $((SECONDS - begin)) s" &&
        load && say "the images are loaded after $((SECONDS - begin)) s" &&
        suite "$@" && say "the suite is done after $((SECONDS - begin)) s" && return 0
    report "$WORK/$version" >&2
    return 1
}

# DIRECTORY: writes the logs of the nodes there, and prints what a reader without files needs.
report() {
    local log
    rm -rf "$1"
    "$KIND" export logs "$1" || true
    for log in "$1"/*/kubelet.log "$WORK/engine.log"; do
        [[ ! -e $log ]] || { say "the end of $log:" && tail -n 15 "$log" | cut -c 1-400; }
    done
    say "the end of the product's logs:"
    "$KUBECTL" --namespace ca-overlap logs --selector app.kubernetes.io/name=ca-overlap --prefix --tail 15 || true
    say "objects:"
    "$KUBECTL" get nodes,pods --all-namespaces --output wide || true
    "$KUBECTL" get events --all-namespaces --sort-by .lastTimestamp | tail -n 30 || true
}

# Prints the name of a node image; puts one that is built here into the engine.
node_image() {
    local image name
    image=$(image_of "$1" "$2") || return 1
    if [[ $1 == registry ]]; then
        echo "$image"
        return
    fi
    name=ca-overlap-kind-node:v$image
    docker import --change "ENV container=docker" \
        --change 'ENTRYPOINT ["/kind/bin/own-settings.sh", "/usr/local/bin/entrypoint", "/sbin/init"]' "$WORK/node-$image.tar" "$name" >&2 || return 1
    echo "$name"
}

load() {
    local archive
    for archive in "$IMAGES"/*.tar; do
        "$KIND" load image-archive "$archive" || return 1
    done
}

suite() {
    CA_OVERLAP_TEST_KUBECONFIG=$KUBECONFIG PATH=$(dirname "$KIND"):$PATH cargo test --locked --workspace \
        --manifest-path "$root/Cargo.toml" --test cluster -- --ignored --test-threads=1 --nocapture "$@"
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
    (image_of registry 0.0 >/dev/null 2>&1) && fail "image_of accepts an unknown version"
    for version in $(versions_of registry); do
        [[ $(image_of registry "$version") =~ ^kindest/node:v${version//./\\.}\.[0-9]+@sha256:[0-9a-f]{64}$ ]] ||
            fail "nodes.txt: the image of $version is not pinned by digest: $(image_of registry "$version")"
    done
    said=$(refusal "$config")
    [[ $said != *config* && $said == *'exec: "docker"'* ]] || fail "kind rejects $config: $said"
    wrong=$(mktemp -d)
    sed 's/^nodes:/nods:/' "$config" >"$wrong/cluster.yaml"
    said=$(refusal "$wrong/cluster.yaml")
    rm -rf "$wrong"
    [[ $said == *nods* ]] || fail "kind accepts an unknown field: $said"
    say "the configuration and $(versions_of registry | wc -w) node images are valid"
}

refusal() {
    PATH=/nonexistent "$KIND" create cluster --name ca-overlap-check --config "$1" \
        --kubeconfig /nonexistent/kubeconfig 2>&1 || true
}

# SOURCE: prints its versions, newest first.
versions_of() {
    awk -v nodes="$1" '$1 == nodes { print $2 }' "$here/nodes.txt"
}

# SOURCE VERSION: prints the image, or what is built.
image_of() {
    awk -v nodes="$1" -v version="$2" '$1 == nodes && $2 == version { print $3; found = 1 } END { exit !found }' \
        "$here/nodes.txt" || fail "nodes.txt has no Kubernetes $2 from $1, only: $(versions_of "$1" | xargs)"
}

say() {
    printf 'kind-test: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

main "$@"
