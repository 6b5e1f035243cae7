// Package images makes scratch images of static programs and serves the cluster's registry.
package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// CABundle is where Debian keeps the trusted authorities, and where most TLS libraries look for them.
const CABundle = "/etc/ssl/certs/ca-certificates.crt"

// File is a file of this machine and its place in the image.
type File struct {
	Source string
	Path   string
	Mode   int64
}

// Image is what to build.
type Image struct {
	Ref        string
	Files      []File
	User       string // "" is root
	Entrypoint string // "" is the first file
}

// ParseSpec reads REF=FILE[:/path/in/image][,FILE…]. Without a path, a file lands in / under its own name.
func ParseSpec(spec string) (Image, error) {
	ref, list, ok := strings.Cut(spec, "=")
	if !ok || ref == "" || list == "" {
		return Image{}, fmt.Errorf("%q: want REF=FILE[:/path/in/image][,FILE…]", spec)
	}
	image := Image{Ref: ref}
	for _, item := range strings.Split(list, ",") {
		file := File{Source: item, Path: "/" + filepath.Base(item), Mode: 0o755}
		if i := strings.LastIndex(item, ":/"); i > 0 {
			file.Source, file.Path = item[:i], path.Clean(item[i+1:])
		}
		if file.Source == "" || file.Path == "/" {
			return Image{}, fmt.Errorf("%q: %q names no file", spec, item)
		}
		image.Files = append(image.Files, file)
	}
	return image, nil
}

// Build makes the image: one layer, left uncompressed since nothing here crosses a real network. The same input gives
// the same digest: entries are sorted and carry no time.
func (i Image) Build() (v1.Image, error) {
	layer, err := i.layer()
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.AppendLayers(image, static.NewLayer(layer, types.OCIUncompressedLayer))
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config.Entrypoint = []string{i.Files[0].Path}
	if i.Entrypoint != "" {
		file.Config.Entrypoint = []string{i.Entrypoint}
	}
	file.Config.User = i.User
	file.Config.Env = []string{"PATH=/"}
	return mutate.ConfigFile(image, file)
}

func (i Image) layer() ([]byte, error) {
	contents := map[string][]byte{}
	headers := map[string]*tar.Header{"/tmp": {Typeflag: tar.TypeDir, Mode: 0o1777}}
	for _, f := range i.Files {
		content, err := os.ReadFile(f.Source)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", i.Ref, err)
		}
		if headers[f.Path] != nil {
			return nil, fmt.Errorf("image %s: %s is given twice", i.Ref, f.Path)
		}
		contents[f.Path] = content
		headers[f.Path] = &tar.Header{Typeflag: tar.TypeReg, Mode: f.Mode, Size: int64(len(content))}
		for dir := path.Dir(f.Path); dir != "/"; dir = path.Dir(dir) {
			if headers[dir] == nil {
				headers[dir] = &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}
			}
		}
	}
	if i.Entrypoint != "" && contents[i.Entrypoint] == nil {
		return nil, fmt.Errorf("image %s: the entry point %s is none of its files", i.Ref, i.Entrypoint)
	}
	var paths []string
	for p := range headers {
		paths = append(paths, p)
	}
	slices.Sort(paths) // a folder sorts before what is in it

	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, p := range paths {
		h := headers[p]
		h.Name, h.ModTime = strings.TrimPrefix(p, "/"), time.Unix(0, 0)
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("image %s: %s: %w", i.Ref, p, err)
		}
		if _, err := w.Write(contents[p]); err != nil {
			return nil, fmt.Errorf("image %s: %s: %w", i.Ref, p, err)
		}
	}
	return layer.Bytes(), w.Close()
}
