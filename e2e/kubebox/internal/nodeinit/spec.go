// Package nodeinit is pid 1 of a node, and of the control plane: it lays the node's mounts, starts its daemons and
// reaps what they leave. When it dies the kernel ends every process, mount and interface of the node.
package nodeinit

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// Spec tells an init what to set up and run. It is kept as a file, so that a stopped node starts again from it.
type Spec struct {
	Hostname string
	Root     string   // the cluster's folder
	Dir      string   // the node's own folder in it: overlay uppers, logs
	Overlays []string // the machine's folders whose changes stay in Dir; the one that holds Root last
	Binds    []Bind
	Masks    map[string]string // file of /proc -> the text to show there instead
	Sysctls  map[string]string // path under /proc/sys -> value
	Files    map[string]string // path inside the node -> text
	Daemons  []Daemon
}

// Bind shows Source at Target; both are made where missing.
type Bind struct{ Source, Target string }

// Daemon is one program that runs as long as the node.
type Daemon struct {
	Name      string
	Args      []string
	Env       []string
	AfterPath string // start only once this path exists
	AfterTCP  string // start only once this address accepts a connection
}

// Main runs the init that the file describes; it returns when the node is told to stop.
func Main(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	// The supervisor closes our standard input once the links are there.
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	if err := spec.setup(); err != nil {
		return fmt.Errorf("set up %s: %w", spec.Hostname, err)
	}
	newKeeper(spec.Dir).run(spec.Daemons)
	return nil
}
