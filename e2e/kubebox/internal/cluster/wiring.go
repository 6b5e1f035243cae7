package cluster

import (
	"fmt"

	"sconce.dev/e2e/kubebox/internal/link"
	"sconce.dev/e2e/kubebox/internal/netns"
)

// wireControlPlane makes the bridge that every link ends on. No default route leads out of the cluster's namespaces,
// so no packet of a test can reach the machine's own network.
func wireControlPlane(pid int) error {
	return netns.IP(pid, "link set lo up", "link add kb0 type bridge", "addr add "+cpIP+"/24 dev kb0", "link set kb0 up")
}

// attach joins a node to the bridge: by a veth pair, or by two taps with a shaped line between them.
func (c *Cluster) attach(n Node, cpPid, nodePid int) (*link.Line, error) {
	port := n.port()
	line, err := c.cable(n, cpPid, nodePid)
	if err != nil {
		return nil, err
	}
	detach := func(err error) (*link.Line, error) {
		if line != nil {
			line.Close()
		}
		return nil, fmt.Errorf("wire node %s: %w", n.Name, err)
	}
	if err := netns.IP(cpPid, "link set "+port+" master kb0 up", "route replace "+n.PodCIDR+" via "+n.IP); err != nil {
		return detach(err)
	}
	commands := []string{
		"link set lo up",
		// A fixed address, so that neighbours still find the node after it was stopped and started.
		fmt.Sprintf("link set eth0 address 02:4b:42:00:00:%02x", n.Index),
		"addr add " + n.IP + "/24 dev eth0",
		"link set eth0 up",
		"route add default via " + cpIP, // else node processes get "unreachable" for service IPs before translation
	}
	for _, other := range c.Nodes {
		if other.Name != n.Name {
			commands = append(commands, "route add "+other.PodCIDR+" via "+other.IP)
		}
	}
	if err := netns.IP(nodePid, commands...); err != nil {
		return detach(err)
	}
	return line, nil
}

// queueFrames is the taps' own queue: it must hold what arrives while the supervisor is not scheduled, or a busy
// machine would show as loss.
const queueFrames = 5000

func (c *Cluster) cable(n Node, cpPid, nodePid int) (*link.Line, error) {
	if n.Link == nil {
		return nil, netns.IP(cpPid, fmt.Sprintf("link add %s type veth peer name eth0 netns %d", n.port(), nodePid))
	}
	near, err := netns.OpenTap(cpPid, n.port())
	if err != nil {
		return nil, err
	}
	far, err := netns.OpenTap(nodePid, "eth0")
	if err != nil {
		near.Close()
		return nil, err
	}
	line := link.Join(near, far, *n.Link)
	for pid, dev := range map[int]string{cpPid: n.port(), nodePid: "eth0"} {
		if err := netns.IP(pid, fmt.Sprintf("link set %s txqueuelen %d", dev, queueFrames)); err != nil {
			line.Close()
			return nil, err
		}
	}
	return line, nil
}
