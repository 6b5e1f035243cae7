package cluster

import (
	"encoding/json"
	"strings"
	"testing"

	"sconce.dev/e2e/kubebox/internal/config"
	"sconce.dev/e2e/kubebox/internal/link"
)

func named(names ...string) *Cluster {
	var nodes []config.Node
	for _, n := range names {
		node := config.Node{Name: n}
		if strings.HasPrefix(n, "site-") {
			node.Link = &link.Shape{}
		}
		nodes = append(nodes, node)
	}
	return &Cluster{Name: "test", Dir: "/tmp/test", Nodes: Place(nodes)}
}

func TestDNSRunsOnTheFirstNodeWithoutALink(t *testing.T) {
	for want, c := range map[string]*Cluster{
		"cloud-1": named("site-a-1", "cloud-1", "cloud-2"),
		"site-b":  named("site-b", "site-a"), // all have one: the first
	} {
		if got := c.dnsNode(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestEachNodeOffersItsShareOfTheMachine(t *testing.T) {
	for _, c := range []struct{ total, nodes, want int }{
		{24_000, 3, 16_000}, {24_000, 1, 0}, {4_096, 8, 3_072}, {512, 1, 0}, {0, 3, 0},
	} {
		if got := reservedMebibytes(c.total, c.nodes); got != c.want {
			t.Errorf("%d MiB, %d nodes: reserved %d, want %d", c.total, c.nodes, got, c.want)
		}
	}
}

func TestSetLinkRefusesToShapeAPlainCable(t *testing.T) {
	_, err := named("cloud-1").SetLink("cloud-1", "20ms", "", "", "", false)
	if err == nil || !strings.Contains(err.Error(), "can only be cut") {
		t.Errorf("got %v", err)
	}
	if _, err := named("cloud-1").SetLink("cloud-2", "", "", "", "", true); err == nil || !strings.Contains(err.Error(), "it has cloud-1") {
		t.Errorf("got %v", err)
	}
}

func TestNodesHaveDistinctAddresses(t *testing.T) {
	c := named("a", "b")
	if a, b := c.Nodes[0], c.Nodes[1]; a.IP != "10.89.0.11" || b.IP != "10.89.0.12" || a.PodCIDR == b.PodCIDR || a.port() == b.port() {
		t.Errorf("got %+v", c.Nodes)
	}
}

func TestANodeWithoutLabelsKeepsThoseOfItsKubelet(t *testing.T) {
	bare, err := json.Marshal(description(Node{PodCIDR: "10.244.1.0/24"}))
	if err != nil || strings.Contains(string(bare), "labels") {
		t.Errorf("%s, %v", bare, err)
	}
	labelled, err := json.Marshal(description(Node{Node: config.Node{Labels: map[string]string{"sconce.dev/tier": "edge"}}}))
	if err != nil || !strings.Contains(string(labelled), `"labels":{"sconce.dev/tier":"edge"}`) {
		t.Errorf("%s, %v", labelled, err)
	}
}
