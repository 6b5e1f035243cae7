package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"sconce.dev/e2e/kubebox/internal/nodeinit"
)

// thread runs functions on one thread that lives as long as the supervisor: a child's Pdeathsig fires when the
// *thread* that made it ends, and the Go runtime ends threads as it likes.
type thread chan func()

func newThread() thread {
	t := make(thread)
	go func() {
		runtime.LockOSThread()
		for f := range t {
			f()
		}
	}()
	return t
}

func (t thread) do(f func() error) error {
	done := make(chan error)
	t <- func() { done <- f() }
	return <-done
}

// initProcess is the pid 1 of a node's namespaces.
type initProcess struct {
	Process
	release io.Closer // closing it lets the init go on, once its links are there
}

func (c *Cluster) writeSpec(name string, spec nodeinit.Spec) error {
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.specPath(name), text, 0o600)
}

func (c *Cluster) specPath(name string) string { return filepath.Join(c.nodeDir(name), "init.json") }

// startInit starts the init of a node in fresh namespaces. Even a supervisor killed with -9 leaves no process: the
// kernel then kills the inits, and with each init everything in its pid namespace.
func (c *Cluster) startInit(t thread, name string) (*initProcess, error) {
	log, err := os.OpenFile(filepath.Join(c.nodeDir(name), "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(c.Executable, "init", c.specPath(name))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true,
	}
	release, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := t.do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	process := identify(cmd.Process.Pid)
	go cmd.Wait() // reaps it; whether it lives is asked of /proc
	return &initProcess{Process: process, release: release}, nil
}
