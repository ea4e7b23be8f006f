#!/bin/sh
# Builds the program of an earlier commit, and a kustomization that installs it with that commit's
# manifests. Run by `make node-earlier`. A second run reuses the build.
#
# Environment, in addition to that of pack.sh:
#   COMMIT     the earlier commit
#   OUT        the output directory: commit, kustomization.yaml, tree/
set -eu
. "$(dirname "$0")/pack.sh"

main() {
    [ -n "$COMMIT" ] || fail "no earlier commit found (a shallow clone?): set EARLIER=COMMIT"
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
    # shellcheck disable=SC2046 # words on purpose
    pack earlier ca-overlap:earlier /ca-overlap \
        "$OUT/build/debug/ca-overlap=/ca-overlap" $(libraries "$OUT/build/debug/ca-overlap")
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
