#!/bin/sh
# Builds the program of an earlier commit, beside a tree with that commit's manifests. A second run
# reuses the build. Run by `make upgrade-test`, and by `make node-earlier`, which also wants it as an
# image, with a kustomization that installs it.
#
# Environment:
#   COMMIT     the earlier commit
#   OUT        the output directory: commit, kustomization.yaml, tree/, build/debug/ca-overlap
#   PACK       as for pack.sh, with ARCH and IMAGES; no image without it
set -eu

main() {
    [ -n "$COMMIT" ] || fail "no earlier commit found (a shallow clone?): name one"
    commit=$(git rev-parse --verify "$COMMIT^{commit}") || fail "there is no commit $COMMIT"
    if [ "$(cat "$OUT/commit" 2>/dev/null)" != "$commit" ]; then
        rm -rf "$OUT/tree" "$OUT/commit"
        mkdir -p "$OUT/tree"
        git archive "$commit" | tar -x -C "$OUT/tree"
        # A debug build: an optimised one takes 7 minutes, and this program is not shipped.
        cargo build --locked --manifest-path "$OUT/tree/Cargo.toml" --target-dir "$OUT/build" --bin ca-overlap
        kustomization >"$OUT/kustomization.yaml"
        echo "$commit" >"$OUT/commit"
    fi
    if [ -n "${PACK:-}" ]; then
        . "$(dirname "$0")/pack.sh"
        # shellcheck disable=SC2046 # words on purpose
        pack earlier ca-overlap:earlier /ca-overlap \
            "$OUT/build/debug/ca-overlap=/ca-overlap" $(libraries "$OUT/build/debug/ca-overlap")
    fi
    echo "an earlier build: $(git log -n 1 --format='%h %s' "$commit")" >&2
}

kustomization() {
    cat <<'EOF'
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - tree/manifests/overlays/kind
images:
  - name: ca-overlap
    newTag: earlier
patches:
  - target:
      kind: MutatingWebhookConfiguration
      name: ca-overlap
    patch: |-
      - op: replace
        path: /webhooks/0/failurePolicy
        value: Fail
EOF
}

fail() {
    echo "earlier.sh: $*" >&2
    exit 1
}

main
