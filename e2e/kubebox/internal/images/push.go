package images

import (
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Push builds an image, writes it to the registry at host ("address:port", plain HTTP) and returns REF@DIGEST.
func Push(host string, image Image) (string, error) {
	to, err := mirrored(image.Ref, host)
	if err != nil {
		return "", err
	}
	built, err := image.Build()
	if err != nil {
		return "", err
	}
	digest, err := built.Digest()
	if err != nil {
		return "", err
	}
	if err := remote.Write(to, built); err != nil {
		return "", fmt.Errorf("push %s: %w", image.Ref, err)
	}
	return image.Ref + "@" + digest.String(), nil
}

// mirrored is an image's place in the local registry, where containerd's catch-all mirror looks for it: the same path
// without the registry's host. So unmodified names work, and two hosts' equal paths would meet.
func mirrored(ref, host string) (name.Reference, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("image name: %w", err)
	}
	tag, ok := r.(name.Tag)
	if !ok {
		return nil, fmt.Errorf("image name %q: give a tag; the digest follows from the files", ref)
	}
	return name.NewTag(host+"/"+tag.RepositoryStr()+":"+tag.TagStr(), name.Insecure)
}
