// Writes an OCI archive without any engine: one uncompressed layer with the named files, owned by
// root, without times, so that the same files give the same digest. containerd imports it under the
// names that its index gives.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

type list []string

func (list *list) String() string         { return strings.Join(*list, " ") }
func (list *list) Set(value string) error { *list = append(*list, value); return nil }

func main() {
	var names, entrypoint list
	output := flag.String("o", "", "the archive to write, a `file`")
	user := flag.String("user", "65532:65532", "`UID:GID` of the process")
	libraries := flag.Bool("libraries", false, "add the shared libraries that the files need, as ldd lists them")
	flag.Var(&names, "name", "a full `name` for the image, with registry and tag; may be repeated")
	flag.Var(&entrypoint, "entrypoint", "a `word` of the entrypoint; may be repeated")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: oci -o ARCHIVE -name NAME -entrypoint WORD FILE:/PATH …")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *output == "" || len(names) == 0 || len(entrypoint) == 0 || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(64)
	}
	files, err := inputs(flag.Args(), *libraries)
	if err == nil {
		err = writeArchive(*output, names, entrypoint, *user, files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "oci:", err)
		os.Exit(1)
	}
}

// By path in the image, the file on this machine.
func inputs(arguments []string, libraries bool) (map[string]string, error) {
	files := map[string]string{}
	for _, argument := range arguments {
		file, target, found := strings.Cut(argument, ":")
		if !found || !path.IsAbs(target) {
			return nil, fmt.Errorf("%q is not FILE:/PATH", argument)
		}
		files[path.Clean(target)] = file
		if libraries {
			if err := addLibraries(files, file); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// The loader is named by its path alone, the others by `name => path`.
func addLibraries(files map[string]string, program string) error {
	text, err := exec.Command("ldd", program).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ldd %s: %w: %s", program, err, text)
	}
	for _, match := range regexp.MustCompile(`(?m)(?:=> |^\s*)(/\S+) \(0x`).FindAllSubmatch(text, -1) {
		files[string(match[1])] = string(match[1])
	}
	return nil
}

func writeArchive(output string, names, entrypoint []string, user string, files map[string]string) error {
	layer, err := layer(files)
	if err != nil {
		return err
	}
	digest := func(blob []byte) string {
		sum := sha256.Sum256(blob)
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	descriptor := func(kind string, blob []byte) map[string]any {
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": digest(blob), "size": len(blob)}
	}
	config := marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": entrypoint, "User": user, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	manifest := marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor("config.v1+json", config), "layers": []any{descriptor("layer.v1.tar", layer)},
	})
	var manifests []any
	for _, name := range names {
		one := descriptor("manifest.v1+json", manifest)
		one["annotations"] = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
		manifests = append(manifests, one)
	}
	entries := map[string][]byte{
		"oci-layout": marshal(map[string]string{"imageLayoutVersion": "1.0.0"}),
		"index.json": marshal(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
		}),
	}
	for _, blob := range [][]byte{layer, config, manifest} {
		entries["blobs/sha256/"+strings.TrimPrefix(digest(blob), "sha256:")] = blob
	}
	archive, err := pack(entries)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	return os.WriteFile(output, archive, 0o644)
}

func layer(files map[string]string) ([]byte, error) {
	entries := map[string][]byte{}
	for target, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		entries[strings.TrimPrefix(target, "/")] = content
	}
	return pack(entries)
}

// A tar with directories before what is in them, in a fixed order.
func pack(entries map[string][]byte) ([]byte, error) {
	directories := map[string]bool{}
	var names []string
	for name := range entries {
		names = append(names, name)
		for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
			directories[parent] = true
		}
	}
	var parents []string
	for parent := range directories {
		parents = append(parents, parent)
	}
	slices.Sort(parents)
	slices.Sort(names)
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, parent := range parents {
		if err := writer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: parent + "/", Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(entries[name]))}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(entries[name]); err != nil {
			return nil, err
		}
	}
	err := writer.Close()
	return buffer.Bytes(), err
}

func marshal(value any) []byte {
	// Maps are written in the order of their keys.
	text, _ := json.Marshal(value)
	return text
}
