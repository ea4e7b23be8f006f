# The image: only the static program. `make image` builds it with Docker (BuildKit), `make image-tar`
# without a container engine; docs/release.md says which bytes differ.
#
# The context has one program for each platform, amd64/ca-overlap and arm64/ca-overlap. No compiler
# runs here, so the image contains the program that was tested.
FROM scratch
ARG TARGETARCH
COPY --chmod=0555 ${TARGETARCH}/ca-overlap /ca-overlap
# Numeric, because there is no /etc/passwd and runAsNonRoot needs a number.
USER 65532:65532
ENTRYPOINT ["/ca-overlap"]
