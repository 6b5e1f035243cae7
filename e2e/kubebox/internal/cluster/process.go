package cluster

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process names a process for good: a pid alone may be another's by the time that 'down' reads it.
type Process struct {
	Pid   int
	Start string // since boot, in clock ticks
}

// identify reads a process's start, field 22 of its stat.
func identify(pid int) Process {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}
	}
	// The second field, in brackets, may hold blanks: count from the last bracket.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return Process{}
	}
	return Process{Pid: pid, Start: fields[19]}
}

func (p Process) alive() bool { return !p.wait(0) }

func (p Process) signal(s syscall.Signal) {
	if p.alive() {
		syscall.Kill(p.Pid, s)
	}
}

// wait returns true once the process has ended. It asks a pidfd, not the state in /proc: the latter calls a process
// dead when its first thread is, and only the end of a node's last thread means that the whole node has ended.
func (p Process) wait(limit time.Duration) bool {
	if p.Pid <= 0 {
		return true
	}
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	if identify(p.Pid) != p {
		return true // the pid is another's
	}
	for deadline := time.Now().Add(limit); ; {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(0, time.Until(deadline).Milliseconds())))
		if ready > 0 {
			return true
		}
		if err != unix.EINTR && !time.Now().Before(deadline) {
			return false
		}
	}
}
