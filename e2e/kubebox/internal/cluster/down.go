package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// ErrNoCluster says that there was nothing to remove.
var ErrNoCluster = errors.New("no cluster")

// Down ends a cluster and removes everything of it, also after a crash of the supervisor or of the machine.
func Down(name, dir string) error {
	c, err := read(dir)
	if errors.Is(err, fs.ErrNotExist) {
		c = &Cluster{Name: name, Dir: dir}
		os.Remove(c.ReportPath())
		found, err := removeCgroups(c.cgroup())
		if err == nil && !found {
			return ErrNoCluster
		}
		return err
	}
	if err != nil {
		return err
	}
	if c.Name != name {
		return fmt.Errorf("%s holds cluster %s, not %s", dir, c.Name, name)
	}
	keeper := c.Processes[supervisor]
	keeper.signal(syscall.SIGTERM)
	if !keeper.wait(30 * time.Second) {
		keeper.signal(syscall.SIGKILL) // the kernel then ends the inits too
		keeper.wait(5 * time.Second)
	}
	os.Remove(c.ReportPath())
	return c.remove()
}

// remove ends the inits that are left, and with them everything in the nodes, then removes cgroups and folder. It may
// be called again.
func (c *Cluster) remove() error {
	for name, p := range c.Processes {
		if name != supervisor {
			p.signal(syscall.SIGKILL)
		}
	}
	for name, p := range c.Processes {
		if name != supervisor && !p.wait(10*time.Second) {
			return fmt.Errorf("the init of %s (process %d) does not end", name, p.Pid)
		}
	}
	_, err := removeCgroups(c.cgroup())
	return errors.Join(err, os.RemoveAll(c.Dir))
}
