package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// Exec replaces this process by a command in all namespaces of a node or of the control plane.
func (c *Cluster) Exec(name string, command []string) error {
	if name != cp {
		if _, err := c.node(name); err != nil {
			return err
		}
	}
	init := c.Processes[name]
	if !init.alive() {
		return fmt.Errorf("node %s is stopped: 'kubebox node start --name %s %[1]s' boots it", name, c.Name)
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return errors.New("nsenter is missing: apt-get install -y util-linux")
	}
	os.Setenv("PATH", c.Bin+":"+os.Getenv("PATH"))
	args := append([]string{"nsenter", "-t", strconv.Itoa(init.Pid), "-n", "-m", "-p", "-u", "-i", "--"}, command...)
	return syscall.Exec(nsenter, args, os.Environ())
}
