package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// startLimit bounds a start. It takes about ten seconds on an idle machine; a machine that compiles beside it needs more.
const startLimit = 4 * time.Minute

const pollEvery = 100 * time.Millisecond

// stalled is a step of the start that did not come about, with the log that most likely says why.
type stalled struct {
	step string
	last error
	log  string
}

func (e *stalled) Error() string { return fmt.Sprintf("%s: %v", e.step, e.last) }

func (e *stalled) Unwrap() error { return e.last }

func (s *supervision) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	api, err := s.newAPI()
	if err != nil {
		return err
	}
	if err := s.await(ctx, cp, "apiserver", "the API server is not ready", func() error { return api.get("/readyz", nil) }); err != nil {
		return err
	}
	s.progress.say("API server ready")
	for _, n := range s.Nodes {
		if err := s.await(ctx, n.Name, "kubelet", "node "+n.Name+" does not register", func() error { return api.describe(n) }); err != nil {
			return err
		}
	}
	s.progress.say("nodes registered and labelled")
	if err := s.await(ctx, cp, "apiserver", "CoreDNS cannot be applied", func() error { return api.apply(s.dnsManifest()) }); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if err := s.await(ctx, n.Name, "kubelet", "node "+n.Name, func() error { return api.nodeReady(n.Name) }); err != nil {
			return err
		}
	}
	s.progress.say("%d nodes Ready", len(s.Nodes))
	if err := s.await(ctx, s.dnsNode(), "kubelet", "DNS", api.dnsReady); err != nil {
		return err
	}
	s.progress.say("DNS ready on %s", s.dnsNode())
	return nil
}

// await polls until ok gives no error. A node whose init has ended is not waited for.
func (s *supervision) await(ctx context.Context, node, daemon, step string, ok func() error) error {
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if !s.Processes[cp].alive() || !s.Processes[node].alive() {
			return &stalled{step, fmt.Errorf("the init of %s has ended", node), filepath.Join(s.nodeDir(node), "init.log")}
		}
		select {
		case <-ctx.Done():
			if ctx.Err() == context.Canceled {
				return fmt.Errorf("told to stop while waiting: %s", step)
			}
			return &stalled{step, fmt.Errorf("%w (given up after %v)", err, startLimit), s.mostLikely(node, daemon)}
		case <-time.After(pollEvery):
		}
	}
}

// mostLikely is the daemon's log, or, where the daemon never started, the log of the init that tries to start it.
func (s *supervision) mostLikely(node, daemon string) string {
	if log := filepath.Join(s.nodeDir(node), daemon+".log"); exists(log) {
		return log
	}
	return filepath.Join(s.nodeDir(node), "init.log")
}
