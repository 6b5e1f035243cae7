package cluster

import (
	"os"
	"path/filepath"

	"sconce.dev/e2e/kubebox/internal/nodeinit"
)

// nodeSpec is the spec of one node: containerd, kubelet and kube-proxy with the standard paths, each for itself.
func (c *Cluster) nodeSpec(n Node) nodeinit.Spec {
	dir := c.nodeDir(n.Name)
	env := []string{"PATH=" + c.Bin + ":" + os.Getenv("PATH")}
	return nodeinit.Spec{
		Hostname: n.Name, Root: c.Dir, Dir: dir, Overlays: []string{"/etc", "/opt", "/var"},
		Binds: []nodeinit.Bind{
			{Source: filepath.Join(dir, "containerd"), Target: "/var/lib/containerd"}, // an overlay's upper cannot lie on an overlay
			{Source: filepath.Join(dir, "kubelet"), Target: "/var/lib/kubelet"},
			{Source: filepath.Join(dir, "pods"), Target: "/var/log/pods"},
		},
		Masks: map[string]string{ // what kubelet wants to find
			"/proc/sys/vm/overcommit_memory": "1", "/proc/sys/vm/panic_on_oom": "0",
			"/proc/sys/kernel/panic": "10", "/proc/sys/kernel/panic_on_oops": "1",
		},
		Sysctls: map[string]string{
			"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1", "net/ipv4/conf/all/route_localnet": "1",
			"net/ipv4/tcp_congestion_control": congestionControl,
		},
		Files: map[string]string{
			"/etc/hostname":               n.Name + "\n",
			"/etc/hosts":                  "127.0.0.1 localhost\n" + n.IP + " " + n.Name + "\n",
			"/etc/resolv.conf":            "search .\n", // no name server: nothing outside can be reached
			"/etc/containerd/config.toml": containerdConfig(c.Bin),
			"/etc/containerd/certs.d/_default/hosts.toml": mirrorConfig,
			"/etc/cni/net.d/10-kubebox.conflist":          cniConfig(n),
			"/etc/kubernetes/kubelet.yaml":                c.kubeletConfig(n),
			"/etc/kubernetes/proxy.yaml":                  c.proxyConfig(n),
		},
		Daemons: []nodeinit.Daemon{
			{Name: "containerd", Env: env, Args: []string{
				filepath.Join(c.Bin, "containerd"), "--config=/etc/containerd/config.toml", "--log-level=info"}},
			{Name: "kubelet", Env: env, AfterPath: "/run/containerd/containerd.sock", Args: []string{c.Executable, "kubelet",
				"--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=" + c.pki("kubelet-"+n.Name+".conf"),
				"--hostname-override=" + n.Name, "--node-ip=" + n.IP, "--v=2"}},
			{Name: "proxy", Env: env, AfterTCP: apiAddr, Args: []string{
				c.Executable, "proxy", "--config=/etc/kubernetes/proxy.yaml", "--v=2"}},
		},
	}
}
