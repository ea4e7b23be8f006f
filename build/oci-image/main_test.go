package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestTheSameFilesGiveTheSameArchive(t *testing.T) {
	first := pack(t, "-file", write(t, "a", "A", 0o755)+"=/bin/a", "-file", write(t, "b", "B", 0o600)+"=/etc/b")
	older := write(t, "older", "A", 0o700)
	if err := os.Chtimes(older, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	second := pack(t, "-file", older+"=/bin/a", "-file", write(t, "b", "B", 0o644)+"=/etc/b")
	if !bytes.Equal(first.bytes, second.bytes) {
		t.Error("the archives differ")
	}
	other := pack(t, "-file", older+"=/bin/a", "-file", write(t, "b", "C", 0o644)+"=/etc/b")
	if bytes.Equal(first.bytes, other.bytes) {
		t.Error("another file, and the same archive")
	}
}

func TestDirectoriesComeBeforeWhatIsInThem(t *testing.T) {
	a := pack(t, "-file", write(t, "x", "X", 0o755)+"=/usr/lib/x", "-file", write(t, "y", "Y", 0o644)+"=/usr/y:0640")
	want := []tar.Header{
		{Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "usr/lib/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "usr/lib/x", Typeflag: tar.TypeReg, Mode: 0o555, Size: 1},
		{Name: "usr/y", Typeflag: tar.TypeReg, Mode: 0o640, Size: 1},
	}
	manifest, config := a.platform(t, a.root(t))
	if got := digest.FromBytes(a.blob(t, manifest.Layers[0])); got != config.RootFS.DiffIDs[0] {
		t.Errorf("the config names the layer %s, which is %s", config.RootFS.DiffIDs[0], got)
	}
	entries := tar.NewReader(bytes.NewReader(a.blob(t, manifest.Layers[0])))
	for _, want := range want {
		got, err := entries.Next()
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != want.Name || got.Typeflag != want.Typeflag || got.Mode != want.Mode || got.Size != want.Size ||
			got.Uid != 0 || got.Gid != 0 || got.Uname != "" || got.Gname != "" || got.ModTime.Unix() != 0 {
			t.Errorf("%+v instead of %+v", got, want)
		}
	}
	if _, err := entries.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("more entries: %v", err)
	}
}

func TestTheConfigSaysWhatRuns(t *testing.T) {
	a := pack(t, "-file", write(t, "p", "P", 0o755)+"=/p", "-label", "k=v=w", "-env", "A=b")
	_, config := a.platform(t, a.root(t))
	if config.OS != "linux" || config.Config.User != "65532:65532" || config.Config.Labels["k"] != "v=w" ||
		strings.Join(config.Config.Entrypoint, " ") != "/p" || strings.Join(config.Config.Env, " ") != "A=b" {
		t.Errorf("%+v", config)
	}
	if config.Created.Unix() != 0 {
		t.Errorf("created %s", config.Created)
	}
	b := pack(t, "-file", write(t, "p", "P", 0o755)+"=/p", "-entrypoint", "/p", "-entrypoint", "--help", "-user", "0:0")
	_, config = b.platform(t, b.root(t))
	if config.Config.User != "0:0" || strings.Join(config.Config.Entrypoint, " ") != "/p --help" {
		t.Errorf("%+v", config)
	}
}

func TestBothKindsOfLoadersFindTheName(t *testing.T) {
	a := pack(t, "-file", write(t, "p", "P", 0o755)+"=/p")
	root := a.root(t)
	if got := root.Annotations[containerdName]; got != "docker.io/library/it:1" {
		t.Errorf("containerd's name is %q", got)
	}
	var docker []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(a.files["manifest.json"], &docker); err != nil {
		t.Fatal(err)
	}
	if docker[0].RepoTags[0] != "it:1" || a.files[docker[0].Config] == nil || a.files[docker[0].Layers[0]] == nil {
		t.Errorf("%+v", docker)
	}
}

func TestAnImageForTwoPlatforms(t *testing.T) {
	p, q := write(t, "p", "P", 0o755), write(t, "q", "Q", 0o755)
	a := pack(t, "-gzip", "-label", "k=v", "-platform", "linux/amd64", "-file", p+"=/p", "-platform", "linux/arm64", "-file", q+"=/p")
	root := a.root(t)
	if root.MediaType != ocispec.MediaTypeImageIndex || a.files["manifest.json"] != nil {
		t.Fatalf("%+v", root)
	}
	var index ocispec.Index
	if err := json.Unmarshal(a.blob(t, root), &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 2 || index.Annotations["k"] != "v" {
		t.Fatalf("%+v", index)
	}
	for i, arch := range []string{"amd64", "arm64"} {
		manifest, config := a.platform(t, index.Manifests[i])
		if config.Architecture != arch || index.Manifests[i].Platform.Architecture != arch {
			t.Errorf("%s: %+v", arch, config)
		}
		if manifest.Layers[0].MediaType != ocispec.MediaTypeImageLayerGzip || manifest.Layers[0].Digest == config.RootFS.DiffIDs[0] {
			t.Errorf("not compressed: %+v", manifest.Layers)
		}
	}
}

func TestWrongInputIsNamed(t *testing.T) {
	p := write(t, "p", "P", 0o755)
	out := filepath.Join(t.TempDir(), "out.tar")
	for _, c := range []struct {
		args  []string
		says  string
		usage bool
	}{
		{[]string{"-name", "it:1", "-file", p + "=/p"}, "-o FILE is missing", true},
		{[]string{"-o", out, "-file", p + "=/p"}, "-name", true},
		{[]string{"-o", out, "-name", "it", "-file", p + "=/p"}, "not NAME:TAG", true},
		{[]string{"-o", out, "-name", "It:1", "-file", p + "=/p"}, "lowercase", true},
		{[]string{"-o", out, "-name", "it:1"}, "no -file", true},
		{[]string{"-o", out, "-name", "it:1", "-file", p}, "not SOURCE=/DESTINATION", true},
		{[]string{"-o", out, "-name", "it:1", "-file", p + "=p"}, "absolute", true},
		{[]string{"-o", out, "-name", "it:1", "-file", p + "=/../p"}, "absolute", true},
		{[]string{"-o", out, "-name", "it:1", "-file", p + "=/p:9"}, "not octal", true},
		{[]string{"-o", out, "-name", "it:1", "-platform", "arm64", "-file", p + "=/p"}, "not OS/ARCH", true},
		{[]string{"-o", out, "-name", "it:1", "-platform", "linux/arm64"}, "has no -file", true},
		{[]string{"-o", out, "-name", "it:1", "-file", p + "=/p", "-file", p + "=/p"}, "twice", true},
		{[]string{"-o", out, "-name", "it:1", "-file", p + "=/p", "-file", p + "=/p/q"}, "a file and a directory", true},
		{[]string{"-o", out, "-name", "it:1", "-user", "nobody", "-file", p + "=/p"}, "not numeric", true},
		{[]string{"-o", out, "-name", "it:1", "-label", "x", "-file", p + "=/p"}, "not KEY=VALUE", true},
		{[]string{"-o", out, "-name", "it:1", "-file", p + "=/p", "more"}, "unexpected", true},
		{[]string{"-o", out, "-name", "it:1", "-file", p + ".no=/p"}, "no such file", false},
		{[]string{"-o", out, "-name", "it:1", "-file", t.TempDir() + "=/p"}, "not a file", false},
	} {
		err := run(c.args, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.says) || errors.As(err, new(usageError)) != c.usage {
			t.Errorf("%q: %v", c.args, err)
		}
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Errorf("an archive was written: %v", err)
	}
}

// An archive that was read back.
type archive struct {
	bytes []byte
	files map[string][]byte
}

func pack(t *testing.T, args ...string) archive {
	t.Helper()
	name := filepath.Join(t.TempDir(), "out", "it.tar")
	var printed bytes.Buffer
	if err := run(append([]string{"-name", "it:1", "-o", name}, args...), &printed, io.Discard); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	a := archive{bytes: data, files: map[string][]byte{}}
	entries := tar.NewReader(bytes.NewReader(data))
	for {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if a.files[header.Name], err = io.ReadAll(entries); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.TrimSpace(printed.String()); got != a.root(t).Digest.String() {
		t.Errorf("printed %s, wrote %s", got, a.root(t).Digest)
	}
	return a
}

func (a archive) root(t *testing.T) ocispec.Descriptor {
	t.Helper()
	var index ocispec.Index
	if err := json.Unmarshal(a.files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 1 {
		t.Fatalf("%+v", index)
	}
	return index.Manifests[0]
}

// The bytes that a descriptor names, which they must fit.
func (a archive) blob(t *testing.T, d ocispec.Descriptor) []byte {
	t.Helper()
	data, ok := a.files[blobPath(d.Digest)]
	if !ok || int64(len(data)) != d.Size || digest.FromBytes(data) != d.Digest {
		t.Fatalf("no such blob: %+v", d)
	}
	return data
}

func (a archive) platform(t *testing.T, d ocispec.Descriptor) (ocispec.Manifest, ocispec.Image) {
	t.Helper()
	var manifest ocispec.Manifest
	if err := json.Unmarshal(a.blob(t, d), &manifest); err != nil {
		t.Fatal(err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(a.blob(t, manifest.Config), &config); err != nil {
		t.Fatal(err)
	}
	a.blob(t, manifest.Layers[0])
	return manifest, config
}

func write(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return name
}
