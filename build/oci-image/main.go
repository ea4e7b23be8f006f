// Command oci-image packs files into an OCI image without a container engine or a registry, and
// writes it as an archive that containerd, podman, docker and kind load as it is:
//
//	oci-image -name ghcr.io/ca-overlap/ca-overlap:dev -file target/static/ca-overlap=/ca-overlap -o image.tar
//
// The same files give the same bytes everywhere: nothing of the machine, of the time or of the
// owner of the files gets in. One image for several platforms takes a -platform before each
// group of -file flags.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a caller has to correct, as opposed to what failed.
const exitUsage = 64

func main() {
	switch err := run(os.Args[1:], os.Stdout, os.Stderr); {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		fmt.Fprintf(os.Stderr, "oci-image: %v; see oci-image -help\n", err)
		os.Exit(exitUsage)
	default:
		fmt.Fprintf(os.Stderr, "oci-image: %v\n", err)
		os.Exit(1)
	}
}

type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// An order is what the command line asks for.
type order struct {
	name      reference.NamedTagged
	output    string
	gzip      bool
	config    ocispec.ImageConfig
	platforms []platformFiles
}

// What one platform's image holds.
type platformFiles struct {
	platform ocispec.Platform
	files    []file
}

func run(args []string, stdout, stderr io.Writer) error {
	order, err := parse(args, stderr)
	if err != nil {
		return err
	}
	image, err := build(order)
	if err != nil {
		return err
	}
	if err := writeFile(order.output, image); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s\n", image.root.Digest)
	return err
}

func parse(args []string, stderr io.Writer) (order, error) {
	var (
		o    order
		name string
	)
	flags := flag.NewFlagSet("oci-image", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&name, "name", "", "`NAME:TAG` that the image is loaded under")
	flags.StringVar(&o.output, "o", "", "the archive to write, a `FILE`")
	flags.BoolVar(&o.gzip, "gzip", false, "compress the layers; best for a registry")
	flags.StringVar(&o.config.User, "user", "65532:65532", "numeric `UID:GID` that the program runs as")
	flags.Func("entrypoint", "program to run, its arguments in further flags (default: the first file)",
		appendTo(&o.config.Entrypoint))
	flags.Func("env", "a `NAME=VALUE` of the environment; may be repeated", appendTo(&o.config.Env))
	flags.Func("label", "a `KEY=VALUE`; may be repeated", func(label string) error {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return errors.New("not KEY=VALUE")
		}
		if o.config.Labels == nil {
			o.config.Labels = map[string]string{}
		}
		o.config.Labels[key] = value
		return nil
	})
	flags.Func("platform", "`OS/ARCH[/VARIANT]` of the -file flags that follow (default linux/"+runtime.GOARCH+")",
		func(text string) error { return o.beginPlatform(text) })
	flags.Func("file", "a `SOURCE=/DESTINATION[:MODE]`; may be repeated. MODE is octal (default 0555, or 0444\nwhere SOURCE is not executable)",
		func(text string) error { return o.addFile(text) })
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			help(flags, stderr)
			return o, err
		}
		return o, usageError{err}
	}
	if flags.NArg() > 0 {
		return o, usagef("unexpected argument %q", flags.Arg(0))
	}
	return o, o.complete(name)
}

func help(flags *flag.FlagSet, out io.Writer) {
	fmt.Fprint(out, `Packs files into an OCI image without a container engine, and prints its digest.

  oci-image -name localhost/pause:1 -file pause=/pause -o pause.tar
  oci-image -name ghcr.io/o/n:1.2.3 -platform linux/amd64 -file a/n=/n -platform linux/arm64 -file b/n=/n -o n.tar

`)
	flags.SetOutput(out)
	flags.PrintDefaults()
}

func appendTo(list *[]string) func(string) error {
	return func(value string) error {
		*list = append(*list, value)
		return nil
	}
}

var (
	platformForm = regexp.MustCompile(`^([a-z0-9]+)/([a-z0-9_]+)(?:/([a-z0-9]+))?$`)
	userForm     = regexp.MustCompile(`^[0-9]+(:[0-9]+)?$`)
)

func (o *order) beginPlatform(text string) error {
	parts := platformForm.FindStringSubmatch(text)
	if parts == nil {
		return errors.New("not OS/ARCH, such as linux/arm64")
	}
	platform := ocispec.Platform{OS: parts[1], Architecture: parts[2], Variant: parts[3]}
	o.platforms = append(o.platforms, platformFiles{platform: platform})
	return nil
}

func (o *order) addFile(text string) error {
	source, rest, ok := strings.Cut(text, "=")
	if !ok || source == "" {
		return errors.New("not SOURCE=/DESTINATION")
	}
	destination, mode, hasMode := strings.Cut(rest, ":")
	if !path.IsAbs(destination) || path.Clean(destination) != destination || destination == "/" {
		return errors.New("the destination is not the absolute path of a file")
	}
	f := file{source: filepath.Clean(source), destination: destination}
	if hasMode {
		bits, err := strconv.ParseUint(mode, 8, 12)
		if err != nil {
			return fmt.Errorf("mode %q is not octal", mode)
		}
		f.mode = int64(bits)
	}
	if len(o.platforms) == 0 {
		if err := o.beginPlatform("linux/" + runtime.GOARCH); err != nil {
			return err
		}
	}
	last := &o.platforms[len(o.platforms)-1]
	last.files = append(last.files, f)
	return nil
}

func (o *order) complete(name string) error {
	named, err := reference.ParseNormalizedNamed(name)
	tagged, hasTag := named.(reference.NamedTagged)
	switch {
	case err != nil:
		return usagef("-name %q: %w", name, err)
	case !hasTag:
		return usagef("-name %q is not NAME:TAG", name)
	case o.output == "":
		return usagef("-o FILE is missing")
	case !userForm.MatchString(o.config.User):
		return usagef("-user %q is not numeric: an image without /etc/passwd knows no names", o.config.User)
	case len(o.platforms) == 0:
		return usagef("no -file: an image needs one at least")
	}
	o.name = tagged
	seen := map[string]bool{}
	for _, p := range o.platforms {
		name := p.platform.OS + "/" + p.platform.Architecture + "/" + p.platform.Variant
		if seen[name] {
			return usagef("-platform %s stands there twice", strings.TrimSuffix(name, "/"))
		}
		if seen[name] = true; len(p.files) == 0 {
			return usagef("-platform %s has no -file", strings.TrimSuffix(name, "/"))
		}
	}
	if len(o.config.Entrypoint) == 0 {
		o.config.Entrypoint = []string{o.platforms[0].files[0].destination}
	}
	return nil
}
