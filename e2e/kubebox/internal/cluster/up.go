package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Up makes the cluster: it checks what can be checked, starts the supervisor apart from this terminal, and follows it
// until everything is Ready.
func Up(c *Cluster, out io.Writer) error {
	started := time.Now()
	say := func(step string) { fmt.Fprintf(out, "%6.1fs  %s\n", time.Since(started).Seconds(), step) }
	if err := Preflight(c.Bin); err != nil {
		return err
	}
	listeners, err := c.listen()
	if err != nil {
		return err
	}
	if err := c.claim(); err != nil {
		return err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return errors.Join(err, c.remove())
	}
	child, err := c.launch(append([]*os.File{writer}, listeners...))
	if err != nil {
		return errors.Join(err, c.remove())
	}
	for _, f := range append(listeners, writer) {
		f.Close()
	}
	// Ctrl-C here means the cluster, whose session is its own and hears nothing of it.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for range interrupts {
			child.Process.Signal(syscall.SIGTERM)
		}
	}()

	var reason error
	var lines string
	for messages := json.NewDecoder(reader); ; {
		var m message
		if err := messages.Decode(&m); err != nil {
			break // the supervisor has ended
		}
		switch {
		case m.Ready:
			say("ready; logs in " + c.Dir)
			fmt.Fprintf(out, "KUBECONFIG=%s\n", c.Kubeconfig())
			return nil
		case m.Error != "":
			reason, lines = errors.New(m.Error), m.Log
			say("failed; removing what was made")
		default:
			say(m.Step)
		}
	}
	ended := child.Wait()
	if reason == nil {
		reason = fmt.Errorf("the supervisor ended without a word: %v", ended)
		lines = tail(c.path(supervisorLog), 20)
		os.WriteFile(c.ReportPath(), []byte(lines+"\n"), 0o644)
	}
	if lines != "" {
		lines = "; the last lines of what most likely says why:\n" + lines
	}
	// The supervisor has removed everything unless it was killed; once more does no harm. It knew processes that c does
	// not: read them.
	if left, err := read(c.Dir); err == nil {
		c = left
	}
	return errors.Join(fmt.Errorf("%w\nfull log: %s%s", reason, c.ReportPath(), lines), c.remove())
}

const supervisorLog = "supervisor.log"

// listen takes the two ports before anything is made. The supervisor inherits them, so no one can come between.
func (c *Cluster) listen() ([]*os.File, error) {
	var files []*os.File
	for _, p := range []struct {
		flag string
		port int
	}{{"--api-port", c.APIPort}, {"--registry-port", c.RegistryPort}} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p.port))
		if err != nil {
			holder := ""
			for _, other := range known() {
				if other.APIPort == p.port || other.RegistryPort == p.port {
					holder = fmt.Sprintf(" (cluster %s has it; 'kubebox down --name %[1]s' frees it)", other.Name)
				}
			}
			return nil, fmt.Errorf("%w%s: choose another with %s", err, holder, p.flag)
		}
		f, err := l.(*net.TCPListener).File()
		l.Close()
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// claim makes the cluster's folder and its state file, or refuses if someone has it.
func (c *Cluster) claim() error {
	taken := fmt.Errorf("cluster %s exists in %s, running or left by a crash: run 'kubebox down --name %[1]s --dir %[2]s' first", c.Name, c.Dir)
	if exists(c.path(stateFile)) || len(cgroupTops(c.cgroup())) > 0 {
		return taken
	}
	if err := os.MkdirAll(filepath.Dir(c.Dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(c.Dir, 0o755); errors.Is(err, os.ErrExist) {
		entries, err := os.ReadDir(c.Dir)
		if err != nil || len(entries) > 0 {
			return fmt.Errorf("%s is there and not empty: give another --dir, or remove it if it is of no use", c.Dir)
		}
	} else if err != nil {
		return err
	}
	os.Remove(c.ReportPath())
	return c.save()
}

func (c *Cluster) launch(inherit []*os.File) (*exec.Cmd, error) {
	log, err := os.Create(c.path(supervisorLog))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(c.Executable, "supervise", c.Dir)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = inherit
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // outlives this terminal and the group of its shell
	return cmd, cmd.Start()
}
