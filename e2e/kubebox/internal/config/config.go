// Package config reads the file that describes a cluster's nodes.
package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"

	"sigs.k8s.io/yaml"

	"sconce.dev/e2e/kubebox/internal/link"
)

// Node is one node as the file wants it.
type Node struct {
	Name   string
	Labels map[string]string
	Link   *link.Shape // nil: a plain, fast cable
}

// MaxNodes follows from the addresses: 10.89.0.11 is the first node's, one octet for all.
const MaxNodes = 200

var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Load reads and checks FILE.
func Load(path string) ([]Node, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's description: %w", err)
	}
	nodes, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return nodes, nil
}

// Parse decodes the description strictly: an unknown field is an error, since it is most likely a misspelt one.
func Parse(text []byte) ([]Node, error) {
	var file struct {
		Nodes []struct {
			Name   string            `json:"name"`
			Labels map[string]string `json:"labels"`
			Link   *struct {
				Delay  string `json:"delay"`
				Jitter string `json:"jitter"`
				Loss   string `json:"loss"`
				Rate   string `json:"rate"`
			} `json:"link"`
		} `json:"nodes"`
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		return nil, err
	}
	if len(file.Nodes) == 0 {
		return nil, errors.New("nodes: empty; name at least one node")
	}
	if len(file.Nodes) > MaxNodes {
		return nil, fmt.Errorf("nodes: %d, at most %d fit", len(file.Nodes), MaxNodes)
	}
	var nodes []Node
	seen := map[string]bool{"cp": true} // the control plane's name in exec and logs
	for i, n := range file.Nodes {
		if !nodeName.MatchString(n.Name) {
			return nil, fmt.Errorf("nodes[%d].name: %q is not a DNS label (lower-case letters, digits, dashes)", i, n.Name)
		}
		if seen[n.Name] {
			return nil, fmt.Errorf("nodes[%d].name: %q is taken; choose another", i, n.Name)
		}
		seen[n.Name] = true
		node := Node{Name: n.Name, Labels: n.Labels}
		if n.Link != nil {
			shape, err := link.Shape{}.Override(n.Link.Delay, n.Link.Jitter, n.Link.Loss, n.Link.Rate)
			if err != nil {
				return nil, fmt.Errorf("nodes[%d].link.%w", i, err)
			}
			node.Link = &shape
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}
