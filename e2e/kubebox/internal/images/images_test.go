package images

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseSpecPlacesFiles(t *testing.T) {
	got, err := ParseSpec("sconce/operator:dev=/build/operator,/build/crds.yaml:/etc/sconce/crds.yaml")
	want := Image{Ref: "sconce/operator:dev", Files: []File{
		{Source: "/build/operator", Path: "/operator", Mode: 0o755},
		{Source: "/build/crds.yaml", Path: "/etc/sconce/crds.yaml", Mode: 0o755},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "a:1", "a:1=", "=f", "a:1=f,", "a:1=f:/"} {
		if got, err := ParseSpec(bad); err == nil {
			t.Errorf("%q became %+v", bad, got)
		}
	}
}

// program writes a file with its own modification time, as two builds of the same program would.
func program(t *testing.T, content string, modified time.Time) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(f, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(f, modified, modified); err != nil {
		t.Fatal(err)
	}
	return f
}

func digest(t *testing.T, image Image) string {
	t.Helper()
	built, err := image.Build()
	if err != nil {
		t.Fatal(err)
	}
	d, err := built.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestSameFilesGiveTheSameDigest(t *testing.T) {
	image := func(content, user string, modified int64) Image {
		f := program(t, content, time.Unix(modified, 0))
		return Image{Ref: "a:1", User: user, Files: []File{{f, "/bin/a", 0o755}, {f, "/b", 0o644}}}
	}
	first := digest(t, image("x", "65532:65532", 1))
	if again := digest(t, image("x", "65532:65532", 2_000_000)); again != first {
		t.Errorf("another time of modification changed the digest: %s, %s", first, again)
	}
	if other := digest(t, image("y", "65532:65532", 1)); other == first {
		t.Error("other content has the same digest")
	}
	if other := digest(t, image("x", "", 1)); other == first {
		t.Error("another user has the same digest")
	}
}

func TestRegistryKeepsImagesAndServesOpenRanges(t *testing.T) {
	handler, err := newHandler(filepath.Join(t.TempDir(), "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")

	image := Image{Ref: "registry.example/team/app:1", Files: []File{{program(t, "program", time.Unix(1, 0)), "/app", 0o755}}}
	ref, err := Push(host, image)
	if err != nil {
		t.Fatal(err)
	}
	if want := image.Ref + "@" + digest(t, image); ref != want {
		t.Errorf("pushed %s, want %s", ref, want)
	}

	built, _ := image.Build()
	layers, _ := built.Layers()
	layer, _ := layers[0].Digest()
	reader, _ := layers[0].Uncompressed()
	whole, _ := io.ReadAll(reader)
	request, _ := http.NewRequest(http.MethodGet, server.URL+"/v2/team/app/blobs/"+layer.String(), nil)
	request.Header.Set("Range", "bytes=512-")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	rest, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusPartialContent || string(rest) != string(whole[512:]) {
		t.Errorf("got %s and %d bytes, want 206 and %d", response.Status, len(rest), len(whole)-512)
	}
}
