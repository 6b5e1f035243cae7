package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Preflight refuses a machine on which the cluster cannot run, before anything is made, and names every reason.
func Preflight(bin string) error {
	if os.Geteuid() != 0 {
		return errors.New("kubebox makes namespaces, mounts and cgroups: run it as root")
	}
	// Where these are modules they are loaded on first use, but the checks below come before that.
	for _, module := range []string{"overlay", "br_netfilter", "tun", "veth", "nf_tables"} {
		exec.Command("modprobe", "-q", module).Run() // built in, or absent: the checks tell
	}
	var missing []error
	add := func(ok bool, format string, args ...any) {
		if !ok {
			missing = append(missing, fmt.Errorf(format, args...))
		}
	}
	for program, pkg := range map[string]string{
		"ip": "iproute2", "nft": "nftables", "iptables": "iptables", "nsenter": "util-linux", "mount": "mount",
	} {
		_, err := exec.LookPath(program)
		add(err == nil, "the program %q is missing: apt-get install -y %s", program, pkg)
	}
	for _, program := range []string{
		"containerd", "containerd-shim-runc-v2", "runc", "bridge", "host-local", "portmap", "tuning", "loopback", "coredns", "pause",
	} {
		add(exists(filepath.Join(bin, program)), "%s is missing: run build.sh with that folder", filepath.Join(bin, program))
	}
	filesystems, _ := os.ReadFile("/proc/filesystems")
	add(strings.Contains(string(filesystems), "\toverlay\n"), "the kernel has no overlayfs (CONFIG_OVERLAY_FS)")
	add(exists("/dev/net/tun"), "/dev/net/tun is missing (CONFIG_TUN, or a container without that device)")
	add(exists("/proc/sys/net/bridge/bridge-nf-call-iptables"), "the kernel has no br_netfilter (CONFIG_BRIDGE_NETFILTER)")
	missing = append(missing, missingCgroups()...)
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("this machine cannot run a cluster:\n%w", errors.Join(missing...))
}

func missingCgroups() []error {
	var missing []error
	if isV2() {
		text, _ := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
		have := strings.Fields(string(text))
		for _, want := range []string{"cpu", "cpuset", "memory", "pids"} {
			if !slices.Contains(have, want) {
				missing = append(missing, fmt.Errorf("cgroup v2 lacks the controller %s in %s/cgroup.controllers", want, cgroupRoot))
			}
		}
		return missing
	}
	for _, want := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids"} {
		if !exists(filepath.Join(cgroupRoot, want, "cgroup.procs")) {
			missing = append(missing, fmt.Errorf("the cgroup controller %s is not mounted at %s/%s", want, cgroupRoot, want))
		}
	}
	return missing
}
