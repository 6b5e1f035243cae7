// Package cluster is one running cluster: its layout, its supervisor, and how it is made and removed.
package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sconce.dev/e2e/kubebox/internal/config"
)

// Every cluster has its own network namespaces, so all use the same addresses.
const (
	cpIP         = "10.89.0.1" // the control plane, on the bridge
	apiAddr      = cpIP + ":6443"
	registryAddr = cpIP + ":5000"
	serviceCIDR  = "10.96.0.0/16"
	kubernetesIP = "10.96.0.1"
	dnsIP        = "10.96.0.10"
	podCIDR      = "10.244.0.0/16"
)

// cp names the control plane's namespaces where nodes are named.
const cp = "cp"

const parent = "/var/lib/kubebox" // of the clusters' folders

var clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

// Node is a node of the file with its place in the network.
type Node struct {
	config.Node
	Index   int    // from 1
	IP      string // on the bridge
	PodCIDR string
}

func (n Node) port() string { return fmt.Sprintf("node-%d", n.Index) } // its end on the bridge; a name of the machine may be too long

// Cluster is what the cluster's state file holds.
type Cluster struct {
	Name         string
	Dir          string
	Executable   string // kubebox
	Bin          string // folder of containerd, runc, the CNI plugins, coredns, pause
	APIPort      int    // on the machine's loopback
	RegistryPort int    // likewise
	GraceSeconds int    // how long a silent node still counts as Ready
	Nodes        []Node
	Processes    map[string]Process // the supervisor and each running init
}

const supervisor = "supervisor"

// DefaultDir is the folder of a cluster unless another is given.
func DefaultDir(name string) string { return filepath.Join(parent, name) }

// CheckName refuses names that are no file or cgroup name.
func CheckName(name string) error {
	if !clusterName.MatchString(name) {
		return fmt.Errorf("--name %q: want 1 to 32 lower-case letters, digits and dashes", name)
	}
	return nil
}

// Place gives each node its addresses.
func Place(nodes []config.Node) []Node {
	var placed []Node
	for i, n := range nodes {
		placed = append(placed, Node{
			Node: n, Index: i + 1, IP: fmt.Sprintf("10.89.0.%d", 11+i), PodCIDR: fmt.Sprintf("10.244.%d.0/24", i+1),
		})
	}
	return placed
}

func (c *Cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.Dir}, elements...)...)
}

func (c *Cluster) nodeDir(name string) string {
	if name == cp {
		return c.path(cp)
	}
	return c.path("nodes", name)
}

// Kubeconfig is the administrator's file, for use on this machine.
func (c *Cluster) Kubeconfig() string { return c.path("kubeconfig") }

// RegistryHost is where this machine reaches the registry.
func (c *Cluster) RegistryHost() string { return fmt.Sprintf("127.0.0.1:%d", c.RegistryPort) }

// ReportPath is the only file that a failed start leaves.
func (c *Cluster) ReportPath() string { return c.Dir + ".failed.log" }

func (c *Cluster) node(name string) (Node, error) {
	var known []string
	for _, n := range c.Nodes {
		if n.Name == name {
			return n, nil
		}
		known = append(known, n.Name)
	}
	return Node{}, fmt.Errorf("cluster %s has no node %q; it has %s", c.Name, name, strings.Join(known, ", "))
}

const stateFile = "state.json"

func (c *Cluster) save() error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	// Written aside and renamed: other commands read it at any time.
	next := c.path(stateFile + ".next")
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, c.path(stateFile))
}

func read(dir string) (*Cluster, error) {
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	return c, nil
}

// Load finds a cluster that is up.
func Load(name, dir string) (*Cluster, error) {
	c, err := read(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no cluster %s in %s%s", name, dir, others())
	}
	if err != nil {
		return nil, err
	}
	if c.Name != name {
		return nil, fmt.Errorf("%s holds cluster %s, not %s", dir, c.Name, name)
	}
	if !c.Processes[supervisor].alive() {
		return nil, fmt.Errorf("cluster %s has lost its supervisor: run 'kubebox down --name %s', then up again", name, name)
	}
	return c, nil
}

// known lists the clusters in the usual place, running or left by a crash.
func known() []*Cluster {
	var list []*Cluster
	found, _ := filepath.Glob(filepath.Join(parent, "*", stateFile))
	for _, f := range found {
		if c, err := read(filepath.Dir(f)); err == nil {
			list = append(list, c)
		}
	}
	return list
}

func others() string {
	var names []string
	for _, c := range known() {
		names = append(names, c.Name)
	}
	if len(names) == 0 {
		return "; 'kubebox up' makes one"
	}
	return "; there are: " + strings.Join(names, ", ")
}
