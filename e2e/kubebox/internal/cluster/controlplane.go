package cluster

import (
	"fmt"
	"path/filepath"

	"sconce.dev/e2e/kubebox/internal/nodeinit"
)

// controlPlane is the spec of the namespaces with etcd, the API server, the controllers, the registry and the bridge
// that all links end on.
func (c *Cluster) controlPlane() nodeinit.Spec {
	dir := c.nodeDir(cp)
	return nodeinit.Spec{
		Hostname: cp, Root: c.Dir, Dir: dir, Overlays: []string{"/etc", "/var"},
		Sysctls: map[string]string{
			"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "0",
			"net/ipv4/tcp_congestion_control": congestionControl,
		},
		Files: map[string]string{c.auditPolicyPath(): auditPolicy},
		Daemons: []nodeinit.Daemon{
			{Name: "etcd", Args: []string{c.Executable, "etcd", "--data-dir=" + filepath.Join(dir, "etcd")}},
			{Name: "registry", Args: []string{c.Executable, "registry", registryAddr, filepath.Join(dir, "registry"),
				pauseImage + "=" + filepath.Join(c.Bin, "pause"), dnsImage + "=" + filepath.Join(c.Bin, "coredns")}},
			{Name: "apiserver", Args: c.apiserver(), AfterTCP: "127.0.0.1:2379"},
			{Name: "controller-manager", Args: c.controllerManager(), AfterTCP: "127.0.0.1:6443"},
			{Name: "scheduler", Args: c.scheduler(), AfterTCP: "127.0.0.1:6443"},
		},
	}
}

// clientRate lifts the default of 20 requests a second, which slows the start and mass changes.
var clientRate = []string{"--kube-api-qps=300", "--kube-api-burst=600"}

func (c *Cluster) pki(file string) string { return c.path("pki", file) }

func (c *Cluster) apiserver() []string {
	return []string{c.Executable, "apiserver",
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + cpIP, "--secure-port=6443",
		"--service-cluster-ip-range=" + serviceCIDR,
		"--tls-cert-file=" + c.pki("apiserver.crt"), "--tls-private-key-file=" + c.pki("apiserver.key"),
		"--client-ca-file=" + c.pki("ca.crt"),
		"--kubelet-certificate-authority=" + c.pki("ca.crt"),
		"--kubelet-client-certificate=" + c.pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + c.pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.pki("service-accounts.crt"),
		"--service-account-signing-key-file=" + c.pki("service-accounts.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--requestheader-client-ca-file=" + c.pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + c.pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + c.pki("front-proxy-client.key"),
		"--enable-aggregator-routing=true", // webhooks and aggregated APIs go to pod IPs: no kube-proxy runs here
		"--allow-privileged=true",
		"--audit-policy-file=" + c.auditPolicyPath(),
		"--audit-log-path=" + c.AuditLog(),
	}
}

func (c *Cluster) controllerManager() []string {
	return append([]string{c.Executable, "controller-manager",
		"--kubeconfig=" + c.pki("controller-manager.conf"), "--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + c.pki("service-accounts.key"), "--root-ca-file=" + c.pki("ca.crt"),
		"--cluster-signing-cert-file=" + c.pki("ca.crt"), "--cluster-signing-key-file=" + c.pki("ca.key"),
		"--allocate-node-cidrs=false", // the nodes' CNI files are written beforehand: the supervisor sets podCIDR
		"--service-cluster-ip-range=" + serviceCIDR,
		fmt.Sprintf("--node-monitor-grace-period=%ds", c.GraceSeconds),
		fmt.Sprintf("--node-monitor-period=%ds", max(1, min(5, c.GraceSeconds/8))),
		"--bind-address=127.0.0.1",
	}, clientRate...)
}

func (c *Cluster) scheduler() []string {
	return append([]string{c.Executable, "scheduler",
		"--kubeconfig=" + c.pki("scheduler.conf"), "--leader-elect=false", "--bind-address=127.0.0.1"}, clientRate...)
}

// AuditLog is where tests look for refusals and count writes.
func (c *Cluster) AuditLog() string { return filepath.Join(c.nodeDir(cp), "audit.log") }

func (c *Cluster) auditPolicyPath() string { return filepath.Join(c.nodeDir(cp), "audit-policy.yaml") }

// auditPolicy keeps who asked for what and how it ended, less the noise: events, leases, health, the nodes' heartbeats,
// the API server's own calls, and what Kubernetes' components read. Reads of everyone else stay,
// since a refused read is a finding.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  resources:
  - {group: "", resources: [events]}
  - {group: events.k8s.io, resources: [events]}
  - {group: coordination.k8s.io, resources: [leases]}
- level: None
  nonResourceURLs: ["/healthz*", "/livez*", "/readyz*", "/metrics*", "/version", "/openapi/*", "/api", "/api/*", "/apis", "/apis/*"]
- level: None
  users: ["system:apiserver"]
- level: None
  userGroups: ["system:nodes"]
  resources: [{group: "", resources: [nodes/status]}]
- level: None
  verbs: [get, list, watch]
  userGroups: ["system:nodes", "system:serviceaccounts:kube-system"]
- level: None
  verbs: [get, list, watch]
  users: ["system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy"]
- level: Metadata
`
