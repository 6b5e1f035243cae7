package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const pauseImage = "registry.k8s.io/pause:3.10"

// kubeletConfig holds what a node needs that shares the machine, its disk and its cgroups with others.
func (c *Cluster) kubeletConfig(n Node) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false            # the default refuses cgroup v1
cgroupDriver: cgroupfs
cgroupRoot: /%[1]s/%[2]s       # one per node, made beforehand
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
failSwapOn: false
oomScoreAdj: 0                 # lowering it needs CAP_SYS_RESOURCE, which virtual machines may lack
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDNS: [%[3]s]
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[4]s}
authorization: {mode: Webhook}
tlsCertFile: %[5]s
tlsPrivateKeyFile: %[6]s
imageGCHighThresholdPercent: 100 # the nodes share one disk: never collect or evict for it
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: "100Mi", nodefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.available: "0%%"}
evictionPressureTransitionPeriod: 5s
systemReserved: {cpu: 100m, memory: %[7]dMi} # so that the node offers its share of the machine, not all of it
serializeImagePulls: false
imagePullCredentialsVerificationPolicy: NeverVerify # else content pulled under one name may not run under another
# The lease is renewed every quarter of its duration: the grace period must outlast several renewals.
nodeLeaseDurationSeconds: %[8]d
nodeStatusUpdateFrequency: %[9]ds
`, c.cgroup(), n.Name, dnsIP, c.pki("ca.crt"), c.pki("kubelet-"+n.Name+".crt"), c.pki("kubelet-"+n.Name+".key"),
		reservedMebibytes(memoryMebibytes(), len(c.Nodes)),
		max(4, min(40, c.GraceSeconds*4/5)), max(1, min(10, c.GraceSeconds/5)))
}

// reservedMebibytes leaves each node its share of the machine's memory, and at least 1 GiB.
func reservedMebibytes(total, nodes int) int { return max(0, total-max(1024, total/nodes)) }

// memoryMebibytes is the machine's memory, or 0 where it cannot be read, which reserves nothing.
func memoryMebibytes() int {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kibibytes int
	for _, line := range strings.Split(string(text), "\n") {
		if n, _ := fmt.Sscanf(line, "MemTotal: %d kB", &kibibytes); n == 1 {
			return kibibytes / 1024
		}
	}
	return 0
}

func (c *Cluster) proxyConfig(n Node) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: %s}
clusterCIDR: %s
hostnameOverride: %s
bindAddress: 0.0.0.0
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s} # not writable outside the first network namespace
nftables: {minSyncPeriod: 0s, syncPeriod: 30s}
`, c.pki("proxy.conf"), podCIDR, n.Name)
}

func containerdConfig(bin string) string {
	return fmt.Sprintf(`version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.blockfile"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = %[1]q
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = "/etc/containerd/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  enable_selinux = false
  disable_apparmor = true
  restrict_oom_score_adj = true # no score below the current one without CAP_SYS_RESOURCE
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [%[2]q]
    conf_dir = "/etc/cni/net.d"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = %[3]q
      SystemdCgroup = false
`, pauseImage, bin, filepath.Join(bin, "runc"))
}

// mirrorConfig makes the cluster's registry the mirror of every registry, so that unmodified image names work.
const mirrorConfig = `[host."http://` + registryAddr + `"]
  capabilities = ["pull", "resolve"]
`

// congestionControl of nodes, pods and the control plane, so that a link takes the same time on every machine: that of the host
// may be BBR, which sends no more than 4 segments at once for 0.2 s of every 10. Every kernel has Reno, and any network namespace
// may set it.
const congestionControl = "reno"

func cniConfig(n Node) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "kubebox", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
 {"type": "tuning", "sysctl": {"net.ipv4.tcp_congestion_control": %q}}
]}
`, n.PodCIDR, congestionControl)
}
