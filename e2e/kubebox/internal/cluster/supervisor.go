package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"sconce.dev/e2e/kubebox/internal/link"
	"sconce.dev/e2e/kubebox/internal/netns"
)

// supervision is a cluster that this process keeps running: it is the parent of every init, and the hands of 'link' and 'node'.
type supervision struct {
	*Cluster
	thread   thread
	progress *progress

	mu    sync.Mutex            // guards what follows, and the state file
	lines map[string]*link.Line // nil for a plain cable
}

// Supervise makes the cluster whose state is in dir and keeps it until it is told to stop (SIGTERM or SIGINT). It
// inherits, from 'up', a pipe for its progress and the two listeners.
func Supervise(dir string) error {
	c, err := read(dir)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s := &supervision{Cluster: c, thread: newThread(), progress: inheritProgress(), lines: map[string]*link.Line{}}
	if err := s.run(ctx); err != nil {
		s.report(err)
		s.progress.fail(err)
		return errors.Join(err, s.remove())
	}
	return s.remove()
}

func (s *supervision) run(ctx context.Context) error {
	s.Processes[supervisor] = identify(os.Getpid())
	if err := s.save(); err != nil {
		return err
	}
	if err := s.makeCredentials(); err != nil {
		return fmt.Errorf("make the certificates: %w", err)
	}
	if err := s.makeCgroups(); err != nil {
		return err
	}
	s.progress.say("certificates and cgroups made")
	if err := s.startAll(); err != nil {
		return err
	}
	s.progress.say("%d nodes wired", len(s.Nodes))
	closers, err := s.serve()
	if err != nil {
		return err
	}
	defer closers()
	if err := s.awaitReady(ctx); err != nil {
		return err
	}
	s.progress.ready()
	<-ctx.Done()
	return nil
}

func (s *supervision) startAll() error {
	if err := s.writeSpec(cp, s.controlPlane()); err != nil {
		return err
	}
	control, err := s.startInit(s.thread, cp)
	if err != nil {
		return err
	}
	s.Processes[cp] = control.Process
	if err := s.save(); err != nil {
		return err
	}
	if err := wireControlPlane(control.Pid); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if err := s.writeSpec(n.Name, s.nodeSpec(n)); err != nil {
			return err
		}
		if err := s.startNode(n); err != nil {
			return err
		}
	}
	return control.release.Close()
}

// startNode boots a node from its spec and its kept state.
func (s *supervision) startNode(n Node) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Processes[n.Name].alive() {
		return fmt.Errorf("node %s is already running", n.Name)
	}
	init, err := s.startInit(s.thread, n.Name)
	if err != nil {
		return err
	}
	s.Processes[n.Name] = init.Process
	line, err := s.attach(n, s.Processes[cp].Pid, init.Pid)
	if err != nil {
		init.signal(syscall.SIGKILL)
		return err
	}
	s.lines[n.Name] = line
	if err := s.save(); err != nil {
		return err
	}
	return init.release.Close()
}

// stopNode ends a node as a power cut does: everything in it at once, nothing told to anyone.
func (s *supervision) stopNode(n Node) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	init := s.Processes[n.Name]
	if !init.alive() {
		return fmt.Errorf("node %s is already stopped", n.Name)
	}
	init.signal(syscall.SIGKILL)
	if !init.wait(30 * time.Second) {
		return fmt.Errorf("node %s: its init (process %d) does not end", n.Name, init.Pid)
	}
	if line := s.lines[n.Name]; line != nil {
		line.Close()
	} else {
		// The kernel removes the pair with the node's namespace, a little later: a quick start must not meet it.
		netns.IP(s.Processes[cp].Pid, "link delete "+n.port())
	}
	delete(s.Processes, n.Name)
	delete(s.lines, n.Name)
	// No cgroup outlives a power cut. If those of the pods did, the next kubelet would ask containerd in vain for each
	// of them, three seconds a time, before it reports Ready.
	if _, err := removeCgroups(filepath.Join(s.cgroup(), n.Name)); err != nil {
		return err
	}
	return errors.Join(s.makeCgroups(), s.save())
}

// shape sets a node's link. A plain cable can only be cut and healed.
func (s *supervision) shape(n Node, shape link.Shape) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if line := s.lines[n.Name]; line != nil {
		line.Set(shape)
		return nil
	}
	if !s.Processes[n.Name].alive() {
		return fmt.Errorf("node %s is stopped: start it first", n.Name)
	}
	state := "up"
	if shape.Down {
		state = "down"
	}
	return netns.IP(s.Processes[cp].Pid, "link set "+n.port()+" "+state)
}

// serve opens the ways in: the API server and the registry on the machine's loopback, and the control socket.
func (s *supervision) serve() (func(), error) {
	apiListener, err := inherited(fdAPI)
	if err != nil {
		return nil, err
	}
	registryListener, err := inherited(fdRegistry)
	if err != nil {
		return nil, err
	}
	control, err := net.Listen("unix", s.socket())
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	pid := s.Processes[cp].Pid
	go netns.Forward(apiListener, pid, apiAddr)
	go netns.Forward(registryListener, pid, registryAddr)
	go http.Serve(control, s.controlHandler())
	return func() {
		apiListener.Close()
		registryListener.Close()
		control.Close()
	}, nil
}

// remove ends the inits, and with them everything in the nodes, then removes cgroups and folder.
func (s *supervision) remove() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if line != nil {
			line.Close()
		}
	}
	return s.Cluster.remove()
}
