package main

import (
	_ "crypto/sha256" // what digest.FromBytes uses
	"encoding/json"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The name under which containerd imports an image of an archive: in full, as it looks names up.
const containerdName = "io.containerd.image.name"

// An image: its blobs, and which of them is the first to read.
type image struct {
	name  reference.NamedTagged
	root  ocispec.Descriptor
	blobs map[digest.Digest][]byte
	// The manifest of each platform, as in the order.
	manifests []ocispec.Manifest
}

func build(o order) (*image, error) {
	img := &image{name: o.name, blobs: map[digest.Digest][]byte{}}
	var platforms []ocispec.Descriptor
	for _, p := range o.platforms {
		descriptor, err := img.addPlatform(o, p)
		if err != nil {
			return nil, err
		}
		platforms = append(platforms, descriptor)
	}
	if len(platforms) == 1 {
		img.root = platforms[0]
		return img, nil
	}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: platforms,
		// A registry shows these where it shows no platform's config.
		Annotations: o.config.Labels,
	}
	var err error
	img.root, err = img.addJSON(ocispec.MediaTypeImageIndex, index)
	return img, err
}

// addPlatform adds the layer, config and manifest of one platform.
func (img *image) addPlatform(o order, p platformFiles) (ocispec.Descriptor, error) {
	layer, err := layerTar(p.files)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	diffID, mediaType := digest.FromBytes(layer), ocispec.MediaTypeImageLayer
	if o.gzip {
		mediaType = ocispec.MediaTypeImageLayerGzip
		if layer, err = compress(layer); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	created := epoch.UTC()
	config, err := img.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{
		Created:  &created,
		Platform: p.platform,
		Config:   o.config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History:  []ocispec.History{{Created: &created, CreatedBy: "COPY " + destinations(p.files)}},
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    []ocispec.Descriptor{img.add(mediaType, layer)},
	}
	img.manifests = append(img.manifests, manifest)
	descriptor, err := img.addJSON(ocispec.MediaTypeImageManifest, manifest)
	descriptor.Platform = &p.platform
	return descriptor, err
}

func destinations(files []file) string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.destination
	}
	return strings.Join(names, " ")
}

func (img *image) addJSON(mediaType string, value any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return img.add(mediaType, data), nil
}

func (img *image) add(mediaType string, data []byte) ocispec.Descriptor {
	sum := digest.FromBytes(data)
	img.blobs[sum] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(data))}
}
