package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	differ "github.com/containerd/containerd/v2/pkg/archive"
)

// The Dockerfile's COPY puts the file into an empty directory, and BuildKit has containerd's differ
// write that directory as a layer. Here the same code writes it.
func TestTheLayerIsTheOneThatBuildKitWrites(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, who owns the files of an image")
		}
		t.Skip("SKIPPED: needs root, who owns the files of an image")
	}
	root := t.TempDir()
	copied := filepath.Join(root, "usr", "bin", "program")
	if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(copied, 0o555); err != nil {
		t.Fatal(err)
	}
	// As SOURCE_DATE_EPOCH=0 makes BuildKit do.
	for _, name := range []string{copied, filepath.Dir(copied), filepath.Join(root, "usr")} {
		if err := os.Chtimes(name, time.Unix(0, 0), time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	var want bytes.Buffer
	if err := differ.WriteDiff(context.Background(), &want, "", root); err != nil {
		t.Fatal(err)
	}
	got, err := layerTar([]file{{source: write(t, "p", "a program", 0o755), destination: "/usr/bin/program"}})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%d bytes differ from containerd's %d:\n%q\n%q", len(got), want.Len(), got[:512], want.Bytes()[:512])
	}
}
