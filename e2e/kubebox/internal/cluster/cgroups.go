package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

func (c *Cluster) cgroup() string { return "kubebox-" + c.Name }

// isV2 tells whether the machine has the one hierarchy of cgroup v2 (a folder "unified" beside v1's does not count).
func isV2() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil
}

// hierarchies are the folders of the v1 controllers; links such as cpu -> cpu,cpuacct are left out.
func hierarchies() ([]string, error) {
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != "unified" {
			dirs = append(dirs, filepath.Join(cgroupRoot, e.Name()))
		}
	}
	return dirs, nil
}

// makeCgroups makes kubebox-NAME/NODE, which kubelet wants to exist before it starts.
func (c *Cluster) makeCgroups() error {
	if isV2() {
		return c.makeCgroupsV2()
	}
	dirs, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range dirs {
		_, err := os.Stat(filepath.Join(hierarchy, "cpuset.cpus"))
		cpuset := err == nil
		top := filepath.Join(hierarchy, c.cgroup())
		for _, d := range append([]string{top}, c.below(top)...) {
			if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			// Alone, a cgroup competes as one process among the machine's: nodes would starve beside their own daemons.
			if shares := filepath.Join(d, "cpu.shares"); d == top && exists(shares) {
				if err := os.WriteFile(shares, []byte("16384"), 0o644); err != nil {
					return fmt.Errorf("give the nodes their share of the CPU: %w", err)
				}
			}
			if !cpuset {
				continue
			}
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} { // an empty cpuset accepts no process
				if err := copyDown(d, f); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// makeCgroupsV2 also hands every controller down: kubelet looks for them in its own root.
func (c *Cluster) makeCgroupsV2() error {
	top := filepath.Join(cgroupRoot, c.cgroup())
	for _, d := range append([]string{top}, c.below(top)...) {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup: %w", err)
		}
		parent := filepath.Dir(d)
		controllers, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		for _, name := range strings.Fields(string(controllers)) {
			if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+name), 0o644); err != nil {
				return fmt.Errorf("hand the controller %s down to %s: %w", name, d, err)
			}
		}
	}
	return nil
}

func (c *Cluster) below(top string) []string {
	var dirs []string
	for _, n := range c.Nodes {
		dirs = append(dirs, filepath.Join(top, n.Name))
	}
	return dirs
}

func copyDown(dir, file string) error {
	value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
	if err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strings.TrimSpace(string(value))), 0o644); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	return nil
}

// cgroupTops finds the cluster's cgroups in every hierarchy.
func cgroupTops(name string) []string {
	tops, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", name))
	if own := filepath.Join(cgroupRoot, name); exists(own) {
		tops = append(tops, own)
	}
	return tops
}

// removeCgroups removes what kubebox, kubelet and runc made, in every hierarchy, and tells whether there was anything.
func removeCgroups(name string) (bool, error) {
	tops := cgroupTops(name)
	var failures []error
	for _, top := range tops {
		var dirs []string
		filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, p)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			failures = append(failures, removeCgroup(dirs[i]))
		}
	}
	return len(tops) > 0, errors.Join(failures...)
}

// removeCgroup tries for a second: a cgroup empties shortly after its last process has ended, and tells nobody.
func removeCgroup(dir string) error {
	var err error
	for range 50 {
		if err = unix.Rmdir(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("remove cgroup %s: %w", dir, err)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
