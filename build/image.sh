#!/bin/sh
# Packs the static program into an image: `image.sh docker` by the Dockerfile and BuildKit,
# `image.sh tar` without an engine, as an OCI archive. Run by `make image` and `make image-tar`.
#
# By environment:
#   IMAGE           NAME:TAG of the image
#   IMAGE_DIR       where to work
#   IMAGE_PROGRAMS  the programs by platform: "amd64=FILE arm64=FILE"; no space in a FILE
#   IMAGE_TAR       the archive that is written
#   IMAGE_FLAGS     of oci-image, besides; such as -gzip
#   VERSION         goes into the labels
set -eu

URL=https://github.com/ca-overlap/ca-overlap

main() {
    stage
    case $1 in
        docker) by_docker ;;
        tar) without_engine ;;
        *) fail "what is $1? docker or tar" ;;
    esac
}

# The context of the Dockerfile: one program for each platform, and nothing else.
stage() {
    context=$IMAGE_DIR/context
    rm -rf "$context"
    platforms=
    for pair in $IMAGE_PROGRAMS; do
        arch=${pair%%=*}
        program=${pair#*=}
        [ -f "$program" ] || fail "no program $program for $arch: make static builds one"
        mkdir -p "$context/$arch"
        cp "$program" "$context/$arch/ca-overlap"
        TZ=UTC0 touch -t 197001010000 "$context/$arch/ca-overlap"
        platforms=$platforms${platforms:+,}linux/$arch
    done
    [ -n "$platforms" ] || fail "IMAGE_PROGRAMS names no program"
}

# For any Docker with BuildKit. The time of the file, zero by now, goes into the layer, and
# SOURCE_DATE_EPOCH into the config.
by_docker() {
    docker info >/dev/null 2>&1 ||
        fail "no Docker engine answers; make image-tar needs none"
    set -- --file Dockerfile --platform "$platforms" --tag "$IMAGE" --build-arg SOURCE_DATE_EPOCH=0
    while read -r label; do
        set -- "$@" --label "$label"
    done <<EOF
$(labels)
EOF
    DOCKER_BUILDKIT=1 BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build "$@" "$context"
}

without_engine() {
    set -- -name "$IMAGE" -o "$IMAGE_TAR"
    for arch in $(echo "$platforms" | tr ',' ' '); do
        set -- "$@" -platform "$arch" -file "$context/${arch#linux/}/ca-overlap=/ca-overlap:0555"
    done
    while read -r label; do
        set -- "$@" -label "$label"
    done <<EOF
$(labels)
EOF
    # shellcheck disable=SC2086 # words on purpose
    "$IMAGE_DIR/oci-image" ${IMAGE_FLAGS:-} "$@"
    echo "$IMAGE for $platforms is in $IMAGE_TAR, $(wc -c <"$IMAGE_TAR") bytes"
}

# No time of a build: the same commit gives the same bytes.
labels() {
    cat <<EOF
org.opencontainers.image.title=ca-overlap
org.opencontainers.image.description=Keeps the previous CA beside the new one when a Secret's ca.crt is rotated
org.opencontainers.image.url=$URL
org.opencontainers.image.source=$URL
org.opencontainers.image.documentation=$URL/blob/main/README.md
org.opencontainers.image.licenses=Apache-2.0
org.opencontainers.image.version=$VERSION
EOF
    if revision=$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null); then
        echo "org.opencontainers.image.revision=$revision"
    fi
}

fail() {
    printf 'image: %s\n' "$*" >&2
    exit 1
}

main "$@"
