#!/bin/sh
# Packs the static program into an image: `image.sh docker` with the Dockerfile and BuildKit,
# `image.sh tar` into an archive without a container engine. Run by `make image` and `make
# image-tar`.
#
# Environment:
#   IMAGE           NAME:TAG of the image
#   IMAGE_DIR       the working directory
#   IMAGE_PROGRAMS  the programs by platform: "amd64=FILE arm64=FILE"; a FILE must not contain spaces
#   IMAGE_TAR       the archive to write
#   PACK            the program of build/image
#   VERSION         the version for the labels
#   REPOSITORY      the address of the repository for the labels; empty: none
set -eu

how=$1

# No label has a build time, so the same commit gives the same bytes.
labels() {
    cat <<EOF
title=ca-overlap
description=Keeps the previous CA beside the new one when a Secret's ca.crt is rotated
licenses=Apache-2.0
version=$VERSION
EOF
    git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null | sed 's/^/revision=/'
    [ -z "$REPOSITORY" ] ||
        printf '%s\n' "url=$REPOSITORY" "source=$REPOSITORY" "documentation=$REPOSITORY/blob/main/README.md"
}

# The context of the Dockerfile has only one program for each platform.
context=$IMAGE_DIR/context
rm -rf "$context"
platforms=
for program in $IMAGE_PROGRAMS; do
    arch=${program%%=*}
    mkdir -p "$context/$arch"
    cp "${program#*=}" "$context/$arch/ca-overlap"
    TZ=UTC0 touch -t 197001010000 "$context/$arch/ca-overlap"
    platforms="$platforms linux/$arch"
done

set --
while read -r label; do
    set -- "$@" --label "org.opencontainers.image.$label"
done <<EOF
$(labels)
EOF

case $how in
    docker)
        DOCKER_BUILDKIT=1 BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --file Dockerfile "$@" --tag "$IMAGE" \
            --platform "$(echo $platforms | tr ' ' ,)" --build-arg SOURCE_DATE_EPOCH=0 "$context"
        ;;
    tar)
        for platform in $platforms; do
            set -- "$@" "$platform=$context/${platform#linux/}"
        done
        "$PACK" --name "$IMAGE" --entrypoint /ca-overlap -o "$IMAGE_TAR" "$@"
        echo "wrote $IMAGE for$platforms to $IMAGE_TAR, $(wc -c <"$IMAGE_TAR") bytes"
        ;;
    *)
        echo "image.sh: unknown step $how: use docker or tar" >&2
        exit 1
        ;;
esac
