package main

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// The test binary is also the program.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestOnePlatform(t *testing.T) {
	archive := pack(t, "linux/arm64="+files(t, "A", 0o700, 1e9))
	if !bytes.Equal(read(archive), read(pack(t, "linux/arm64="+files(t, "A", 0o644, 2e9)))) {
		t.Error("the archive depends on the mode or time of a file")
	}
	tag := must(name.NewTag("it:1"))
	image := must(tarball.ImageFromPath(archive, &tag))
	checkImage(t, image, "arm64")
	entries := tar.NewReader(mutate.Extract(image))
	for _, want := range []tar.Header{{Name: "usr", Mode: 0o755}, {Name: "usr/it", Mode: 0o555}} {
		got := must(entries.Next())
		if filepath.Clean(got.Name) != want.Name || got.Mode != want.Mode || got.Uid != 0 || got.ModTime.Unix() != 0 {
			t.Errorf("%+v instead of %+v", got, want)
		}
	}
}

func TestTwoPlatforms(t *testing.T) {
	amd64, arm64 := "linux/amd64="+files(t, "A", 0o700, 1e9), "linux/arm64="+files(t, "B", 0o700, 1e9)
	archive := pack(t, amd64, arm64)
	if !bytes.Equal(read(archive), read(pack(t, amd64, arm64))) {
		t.Error("two archives of the same files differ")
	}
	dir := t.TempDir()
	if output, err := exec.Command("tar", "-x", "-f", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	root := must(must(layout.ImageIndexFromPath(dir)).IndexManifest()).Manifests[0]
	if got := root.Annotations["io.containerd.image.name"]; got != "docker.io/library/it:1" {
		t.Errorf("containerd's name is %q", got)
	}
	index := must(must(layout.ImageIndexFromPath(dir)).ImageIndex(root.Digest))
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest := must(index.IndexManifest())
	if len(manifest.Manifests) != 2 || manifest.Annotations["k"] != "v=w" {
		t.Errorf("%+v", manifest)
	}
	for i, arch := range []string{"amd64", "arm64"} {
		if manifest.Manifests[i].Platform.Architecture != arch {
			t.Errorf("%+v", manifest.Manifests[i].Platform)
		}
		checkImage(t, must(index.Image(manifest.Manifests[i].Digest)), arch)
	}
}

func TestWrongInputFails(t *testing.T) {
	for _, arguments := range [][]string{{}, {"linux/amd64=" + t.TempDir() + "/none"}, {"a/b/c/d=" + t.TempDir()}} {
		if err := command(t, "unused.tar", arguments...).Run(); err == nil {
			t.Errorf("%q does not fail", arguments)
		}
	}
}

func checkImage(t *testing.T, image v1.Image, arch string) {
	if err := validate.Image(image); err != nil {
		t.Error(err)
	}
	config := must(image.ConfigFile())
	if config.OS != "linux" || config.Architecture != arch || config.Created.Unix() != 0 || config.Config.User != "65532:65532" ||
		strings.Join(config.Config.Entrypoint, "|") != "/usr/it|--help" || config.Config.Labels["k"] != "v=w" {
		t.Errorf("%+v", config)
	}
}

// Makes a directory with the file usr/it.
func files(t *testing.T, content string, mode os.FileMode, seconds int64) string {
	dir := t.TempDir()
	file := filepath.Join(dir, "usr", "it")
	check(os.Mkdir(filepath.Dir(file), 0o700))
	check(os.WriteFile(file, []byte(content), mode))
	check(os.Chtimes(file, time.Unix(seconds, 0), time.Unix(seconds, 0)))
	return dir
}

func pack(t *testing.T, directories ...string) string {
	output := filepath.Join(t.TempDir(), "it.tar")
	if output, err := command(t, output, directories...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return output
}

func command(t *testing.T, output string, directories ...string) *exec.Cmd {
	flags := []string{"-name", "it:1", "-entrypoint", "/usr/it --help", "-label", "k=v=w", "-o", output}
	command := exec.CommandContext(t.Context(), os.Args[0], append(flags, directories...)...)
	command.Env = append(os.Environ(), "RUN_MAIN=1")
	return command
}

func read(file string) []byte {
	return must(os.ReadFile(file))
}
