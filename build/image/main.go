// Command image packs directories, one for each platform, into an image without a container engine:
//
//	image -name ca-overlap:dev -entrypoint /ca-overlap -o image.tar linux/amd64=DIR
//
// The output for one platform is an archive as `docker save` writes it, and for several an OCI layout.
// The same files give the same bytes everywhere: the image has no time, owner or mode of this machine.
package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"io"
	"io/fs"
	"log"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

var epoch = time.Unix(0, 0).UTC()

func main() {
	log.SetFlags(0)
	tagged := flag.String("name", "", "the `NAME:TAG` of the image")
	output := flag.String("o", "", "the archive `FILE` to write")
	entrypoint := flag.String("entrypoint", "", "the program and its arguments, separated by spaces")
	labels := map[string]string{}
	flag.Func("label", "a `KEY=VALUE`; may be repeated", func(label string) error {
		key, value, _ := strings.Cut(label, "=")
		labels[key] = value
		return nil
	})
	flag.Parse()
	if flag.NArg() == 0 {
		log.Fatal("name at least one OS/ARCH=DIR")
	}
	tag := must(name.NewTag(*tagged))
	// Numeric, because the image has no /etc/passwd.
	config := v1.Config{User: "65532:65532", Entrypoint: strings.Fields(*entrypoint), Labels: labels}
	var images []mutate.IndexAddendum
	for _, argument := range flag.Args() {
		text, dir, _ := strings.Cut(argument, "=")
		platform := must(v1.ParsePlatform(text))
		image := build(dir, platform, config)
		images = append(images, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	if len(images) == 1 {
		check(tarball.WriteToFile(*output, tag, images[0].Add.(v1.Image)))
	} else {
		writeLayout(*output, tag, images, labels)
	}
}

// build makes the image of one platform, with one layer.
func build(dir string, platform *v1.Platform, config v1.Config) v1.Image {
	files := archive(dir)
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil }
	layer := must(tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(6)))
	created := v1.Time{Time: epoch}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image = must(mutate.ConfigFile(image, &v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant,
		Created: created, Config: config, RootFS: v1.RootFS{Type: "layers"},
	}))
	return must(mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{Created: created, CreatedBy: "COPY"}}))
}

func writeLayout(output string, tag name.Tag, images []mutate.IndexAddendum, labels map[string]string) {
	dir := must(os.MkdirTemp("", "image"))
	defer os.RemoveAll(dir)
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), images...)
	// containerd looks up an image by its full name, in which Docker's registry is docker.io.
	names := layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          strings.TrimPrefix(tag.Name(), "index."),
		"org.opencontainers.image.ref.name": tag.TagStr(),
	})
	// A registry shows the labels of the index if it does not show the config of a platform.
	check(must(layout.Write(dir, empty.Index)).AppendIndex(mutate.Annotations(index, labels).(v1.ImageIndex), names))
	check(os.WriteFile(output, archive(dir), 0o644))
}

// archive makes a tar of all files below dir, sorted by name, owned by root, with the time 0 and one
// mode for all files.
func archive(dir string) []byte {
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	check(fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		check(err)
		switch {
		case name == ".":
			return nil
		case entry.IsDir():
			return writer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: epoch})
		}
		content := must(fs.ReadFile(os.DirFS(dir), name))
		check(writer.WriteHeader(&tar.Header{Name: name, Mode: 0o555, ModTime: epoch, Size: int64(len(content))}))
		_, err = writer.Write(content)
		return err
	}))
	check(writer.Close())
	return out.Bytes()
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
