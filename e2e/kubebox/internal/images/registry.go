package images

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Serve runs a registry over a listener until that is closed. Blobs lie in folder: in memory they cost twice their
// size. Any OCI artifact can be put, tags and referrers included; manifests are in memory and end with the process.
func Serve(l net.Listener, folder string) error {
	handler, err := newHandler(folder)
	if err != nil {
		return err
	}
	return http.Serve(l, handler)
}

func newHandler(folder string) (http.Handler, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil { // the blob handler does not make it
		return nil, fmt.Errorf("registry: %w", err)
	}
	inner := registry.New(
		registry.WithBlobHandler(registry.NewDiskBlobHandler(folder)),
		registry.WithReferrersSupport(true),
		registry.Logger(log.New(io.Discard, "", 0)))
	return resumable{folder, inner}, nil
}

// resumable serves blobs itself: the library knows only closed ranges, and a client that resumes a download asks for
// "bytes=N-".
type resumable struct {
	folder string
	inner  http.Handler
}

// The specification wants every push that is done to be told its place; the library does not say it, and strict
// clients take that for a failure.
var uploadPath = regexp.MustCompile(`^(/v2/.+/blobs/)uploads/`)
var manifestPath = regexp.MustCompile(`^/v2/.+/manifests/[^/]+$`)

func place(r *http.Request) string {
	if match := uploadPath.FindStringSubmatch(r.URL.Path); match != nil {
		return match[1] + r.URL.Query().Get("digest")
	}
	return manifestPath.FindString(r.URL.Path)
}

var blobPath = regexp.MustCompile(`^/v2/.+/blobs/(sha256):([0-9a-f]{64})$`)

func (h resumable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	match := blobPath.FindStringSubmatch(r.URL.Path)
	if match == nil || (r.Method != http.MethodGet && r.Method != http.MethodHead) {
		if at := place(r); r.Method == http.MethodPut && at != "" {
			w.Header().Set("Location", at)
		}
		h.inner.ServeHTTP(w, r)
		return
	}
	blob, err := os.Open(filepath.Join(h.folder, match[1], match[2]))
	if err != nil {
		h.inner.ServeHTTP(w, r) // it knows the registry's own form of "not found"
		return
	}
	defer blob.Close()
	digest := match[1] + ":" + match[2]
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+digest+`"`)
	http.ServeContent(w, r, "", time.Time{}, blob)
}

// Fill pushes the images that the cluster itself needs, then gives the memory back.
func Fill(host string, list []Image) error {
	for _, image := range list {
		pushed, err := Push(host, image)
		if err != nil {
			return err
		}
		fmt.Println("loaded", pushed)
	}
	debug.FreeOSMemory()
	return nil
}
