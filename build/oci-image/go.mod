// Packs files into an OCI image without a container engine. See main.go.
module ca-overlap.dev/oci-image

go 1.24.0

require (
	github.com/distribution/reference v0.6.0
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.1
)
