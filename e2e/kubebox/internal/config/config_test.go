package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"sconce.dev/e2e/kubebox/internal/link"
)

func TestParseReadsNodesLabelsAndLinks(t *testing.T) {
	got, err := Parse([]byte(`
nodes:
- name: cloud-1
  labels: {sconce.dev/tier: cloud, topology.kubernetes.io/zone: cloud}
- name: site-a-1
  labels: {sconce.dev/tier: edge}
  link: {delay: 20ms, rate: 50Mbit}
- name: site-b-1
  link: {}
`))
	want := []Node{
		{Name: "cloud-1", Labels: map[string]string{"sconce.dev/tier": "cloud", "topology.kubernetes.io/zone": "cloud"}},
		{Name: "site-a-1", Labels: map[string]string{"sconce.dev/tier": "edge"}, Link: &link.Shape{Delay: 20 * time.Millisecond, Rate: 50e6}},
		{Name: "site-b-1", Link: &link.Shape{}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"nodes: []":                                            "at least one node",
		"nodes: [{name: A}]":                                   "nodes[0].name",
		"nodes: [{name: cp}]":                                  `"cp" is taken`,
		"nodes: [{name: a}, {name: a}]":                        "nodes[1].name",
		"nodes: [{name: a, lables: {}}]":                       `unknown field "lables"`,
		"nodes: [{name: a, link: {delay: 20}}]":                "delay",
		"nodes: [{name: a, link: {rate: 50MB}}]":               "nodes[0].link.rate",
		"nodes: [{name: a}]\nnodes: [{name: b}]":               "already set",
		"nodes: [{name: " + strings.Repeat("a", 64) + "}]":     "DNS label",
		"nodes: [{name: a, link: {delay: 20ms, lossy: true}}]": `unknown field "lossy"`,
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", text, err, want)
		}
	}
}
