package main

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// writeFile writes the archive whole or not at all.
func writeFile(name string, img *image) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			_ = os.Remove(temporary.Name())
		}
	}()
	err = writeArchive(temporary, img)
	if closing := temporary.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	if err = os.Chmod(temporary.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), name)
}

// writeArchive writes an OCI image layout as a tar.
func writeArchive(out io.Writer, img *image) error {
	w := tar.NewWriter(out)
	entries := []struct {
		name string
		make func() ([]byte, error)
	}{
		{ocispec.ImageLayoutFile, img.layoutFile},
		{ocispec.ImageIndexFile, img.indexFile},
		{"manifest.json", img.dockerFile},
	}
	for _, e := range entries {
		data, err := e.make()
		if err != nil {
			return err
		}
		if data == nil {
			continue
		}
		if err := writeEntry(w, e.name, data); err != nil {
			return err
		}
	}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := w.WriteHeader(header(dir, tar.TypeDir, 0o755, 0)); err != nil {
			return err
		}
	}
	for _, sum := range slices.Sorted(maps.Keys(img.blobs)) {
		if err := writeEntry(w, blobPath(sum), img.blobs[sum]); err != nil {
			return err
		}
	}
	return w.Close()
}

func writeEntry(w *tar.Writer, name string, data []byte) error {
	if err := w.WriteHeader(header(name, tar.TypeReg, 0o644, int64(len(data)))); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func blobPath(sum digest.Digest) string {
	return "blobs/" + sum.Algorithm().String() + "/" + sum.Encoded()
}

func (img *image) layoutFile() ([]byte, error) {
	return json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
}

func (img *image) indexFile() ([]byte, error) {
	root := img.root
	root.Annotations = map[string]string{
		containerdName:            img.name.String(),
		ocispec.AnnotationRefName: img.name.Tag(),
	}
	return json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{root},
	})
}

// What `docker load` without the containerd image store reads. It knows one platform only.
func (img *image) dockerFile() ([]byte, error) {
	if len(img.manifests) != 1 {
		return nil, nil
	}
	type item struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	manifest := img.manifests[0]
	only := item{Config: blobPath(manifest.Config.Digest), RepoTags: []string{reference.FamiliarString(img.name)}}
	for _, layer := range manifest.Layers {
		only.Layers = append(only.Layers, blobPath(layer.Digest))
	}
	return json.Marshal([]item{only})
}
