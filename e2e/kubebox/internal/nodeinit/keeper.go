package nodeinit

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	restartDelay = time.Second           // a daemon that ends at once must not spin
	awaitEvery   = 20 * time.Millisecond // small against the seconds that a daemon takes to come up
)

// keeper starts daemons, starts again one that ends, and reaps orphans (containerd's shims leave them to pid 1).
type keeper struct {
	dir string // for logs

	mu       sync.Mutex
	running  map[int]Daemon
	stopping bool
}

func newKeeper(dir string) *keeper { return &keeper{dir: dir, running: map[int]Daemon{}} }

// run returns when the node is told to stop; pid 1 then ends, and the kernel ends the rest.
func (k *keeper) run(daemons []Daemon) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT)
	for _, d := range daemons {
		go k.start(d)
	}
	for s := range signals {
		if s != syscall.SIGCHLD {
			k.mu.Lock()
			k.stopping = true
			k.mu.Unlock()
			return
		}
		k.reap()
	}
}

func (k *keeper) start(d Daemon) {
	await(func() bool { _, err := os.Stat(d.AfterPath); return d.AfterPath == "" || err == nil })
	await(func() bool { return d.AfterTCP == "" || accepts(d.AfterTCP) })
	if err := k.spawn(d); err != nil {
		fmt.Fprintf(os.Stderr, "%s does not start: %v\n", d.Name, err)
	}
}

func (k *keeper) spawn(d Daemon) error {
	log, err := os.OpenFile(filepath.Join(k.dir, d.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c := exec.Command(d.Args[0], d.Args[1:]...)
	c.Stdout, c.Stderr = log, log
	c.Env = append(os.Environ(), d.Env...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Under the lock, so that reap finds a daemon that ends at once.
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopping {
		return nil
	}
	if err := c.Start(); err != nil {
		return err
	}
	k.running[c.Process.Pid] = d
	return os.WriteFile(filepath.Join(k.dir, d.Name+".pid"), fmt.Append(nil, c.Process.Pid), 0o644)
}

func (k *keeper) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err != nil || pid <= 0 {
			return
		}
		k.mu.Lock()
		d, ours := k.running[pid]
		delete(k.running, pid)
		k.mu.Unlock()
		if ours {
			fmt.Fprintf(os.Stderr, "%s ended (status %d, signal %d): starting it again\n", d.Name, status.ExitStatus(), status.Signal())
			time.AfterFunc(restartDelay, func() { k.start(d) })
		}
	}
}

func await(ok func() bool) {
	for !ok() {
		time.Sleep(awaitEvery)
	}
}

func accepts(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
