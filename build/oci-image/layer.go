package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"time"
)

// A file of a layer.
type file struct {
	source      string
	destination string
	// Permission bits; zero: by the source's.
	mode int64
}

// Of everything in an image. Not the time of a commit: the same program is the same layer then,
// and a registry keeps it once.
var epoch = time.Unix(0, 0)

// layerTar is the layer as a container engine writes it for COPY: PAX entries by name without a
// leading slash, owned by root, and no entry for the root itself.
func layerTar(files []file) ([]byte, error) {
	entries, err := layerEntries(files)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		if err := w.WriteHeader(e.header); err != nil {
			return nil, fmt.Errorf("%s: %w", e.header.Name, err)
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, fmt.Errorf("%s: %w", e.header.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

type entry struct {
	header  *tar.Header
	content []byte
}

// Sorted by name, a directory before what is in it.
func layerEntries(files []file) ([]entry, error) {
	byName := map[string]entry{}
	for _, f := range files {
		content, mode, err := read(f)
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(f.destination, "/")
		if _, taken := byName[name]; taken {
			return nil, usagef("%s is there twice", f.destination)
		}
		byName[name] = entry{header(name, tar.TypeReg, mode, int64(len(content))), content}
	}
	for _, f := range files {
		for dir := path.Dir(f.destination); dir != "/"; dir = path.Dir(dir) {
			name := strings.TrimPrefix(dir, "/")
			if _, taken := byName[name]; taken {
				return nil, usagef("%s is a file and a directory", dir)
			}
			byName[name+"/"] = entry{header: header(name+"/", tar.TypeDir, 0o755, 0)}
		}
	}
	entries := make([]entry, 0, len(byName))
	for _, e := range byName {
		entries = append(entries, e)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].header.Name < entries[j].header.Name })
	return entries, nil
}

func read(f file) (content []byte, mode int64, err error) {
	info, err := os.Stat(f.source)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a file", f.source)
	}
	if content, err = os.ReadFile(f.source); err != nil {
		return nil, 0, err
	}
	switch {
	case f.mode != 0:
		mode = f.mode
	case info.Mode()&0o111 != 0:
		mode = 0o555
	default:
		mode = 0o444
	}
	return content, mode, nil
}

func header(name string, kind byte, mode, size int64) *tar.Header {
	return &tar.Header{
		Typeflag: kind, Name: name, Size: size, Mode: mode, ModTime: epoch, Format: tar.FormatPAX,
	}
}

// The header of gzip holds neither a name nor a time unless they are set.
func compress(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
