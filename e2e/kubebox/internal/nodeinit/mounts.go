package nodeinit

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const noAccess = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// setup gives the node the standard paths for itself while the machine's stay clean. The order of the steps matters;
// each says why.
func (s *Spec) setup() error {
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	for _, step := range []func() error{
		s.mountSystem, s.mountOverlays, s.mountBinds, s.mountMasks, shareMounts, s.writeSysctls, s.writeFiles,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// mountSystem gives the node its own /proc (new pid namespace), /sys (new network namespace) and /run.
func (s *Spec) mountSystem() error {
	// Cut the tree off from the machine's first: in a shared tree the unmount below takes the machine's own cgroup
	// mounts along.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", noAccess, ""); err != nil {
		return err
	}
	hold := filepath.Join(s.Dir, "cgroup")
	if err := os.MkdirAll(hold, 0o755); err != nil {
		return err
	}
	// The new /sys hides the cgroup mounts: carry them over.
	if err := mount("/sys/fs/cgroup", hold, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", noAccess, ""); err != nil {
		return err
	}
	if err := mount(hold, "/sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Unmount(hold, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", hold, err)
	}
	return mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
}

// mountOverlays keeps the node's changes to the machine's folders in the node's own folder.
func (s *Spec) mountOverlays() error {
	// The overlay on /var hides the cluster's own folder: hold it open and bind it back afterwards.
	root, err := unix.Open(s.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.Root, err)
	}
	defer unix.Close(root)
	for _, folder := range s.Overlays {
		upper, work := filepath.Join(s.Dir, "upper", folder), filepath.Join(s.Dir, "work", folder)
		for _, d := range []string{upper, work} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		options := "lowerdir=" + folder + ",upperdir=" + upper + ",workdir=" + work
		if err := mount("overlay", folder, "overlay", 0, options); err != nil {
			return err
		}
	}
	return mount(fmt.Sprintf("/proc/self/fd/%d", root), s.Root, "", unix.MS_BIND, "")
}

func (s *Spec) mountBinds() error {
	for _, b := range s.Binds {
		for _, d := range []string{b.Source, b.Target} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if err := mount(b.Source, b.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	return nil
}

// mountMasks covers machine-wide sysctls that kubelet insists on writing: it reads what it wants, and writes nothing.
func (s *Spec) mountMasks() error {
	if len(s.Masks) == 0 {
		return nil
	}
	// The kernel lets a user-namespaced container mount proc only where one is fully visible, and masks hide parts.
	whole := filepath.Join(s.Dir, "proc")
	if err := os.MkdirAll(whole, 0o755); err != nil {
		return err
	}
	if err := mount("proc", whole, "proc", noAccess, ""); err != nil {
		return err
	}
	for target, text := range s.Masks {
		mask := filepath.Join(s.Dir, "mask", filepath.Base(target))
		if err := writeFile(mask, text+"\n"); err != nil {
			return err
		}
		if err := mount(mask, target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// shareMounts comes last among the mounts: kubelet's Bidirectional volumes and runc's rslave need a shared root.
func shareMounts() error { return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") }

func (s *Spec) writeSysctls() error {
	for path, value := range s.Sysctls {
		if err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0o644); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
	}
	return nil
}

func (s *Spec) writeFiles() error {
	for path, text := range s.Files {
		if err := writeFile(path, text); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s on %s (%s %s): %w", source, target, kind, options, err)
	}
	return nil
}
