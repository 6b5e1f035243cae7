// Package netns reaches into another process's network namespace.
package netns

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Do runs f on a thread that is in the network namespace of pid: sockets, tun files and child processes that f makes
// belong to that namespace. `ip netns exec` would not do: it lays a new /sys over the cgroup mounts.
func Do(pid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err != nil {
			done <- fmt.Errorf("enter the network namespace of process %d: %w", pid, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// IP runs iproute2 commands as one batch in the network namespace of pid.
func IP(pid int, commands ...string) error {
	return Do(pid, func() error {
		c := exec.Command("ip", "-batch", "-")
		c.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("ip -batch (%s): %w: %s", strings.Join(commands, "; "), err, out)
		}
		return nil
	})
}
