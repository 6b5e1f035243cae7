package cluster

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// api is the little of a Kubernetes client that the start needs. client-go would tie this package, and its tests, to
// Kubernetes' build.
type api struct {
	server string
	client *http.Client
}

func (c *Cluster) newAPI() (*api, error) {
	authority, err := os.ReadFile(c.pki("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	admin, err := tls.LoadX509KeyPair(c.pki("admin.crt"), c.pki("admin.key"))
	if err != nil {
		return nil, err
	}
	return &api{
		server: fmt.Sprintf("https://127.0.0.1:%d", c.APIPort),
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{admin}}}},
	}, nil
}

func (a *api) get(path string, into any) error {
	body, err := a.do(http.MethodGet, path, "", nil)
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(body, into)
}

func (a *api) do(method, path, contentType string, body []byte) ([]byte, error) {
	request, err := http.NewRequest(method, a.server+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, bytes.TrimSpace(answer))
	}
	return answer, err
}

// description is what a node says of itself as a merge patch. Without labels it leaves those that the kubelet has set: null
// would remove them, the host's name among them.
func description(n Node) map[string]any {
	patch := map[string]any{"spec": map[string]any{"podCIDR": n.PodCIDR, "podCIDRs": []string{n.PodCIDR}}}
	if len(n.Labels) > 0 {
		patch["metadata"] = map[string]any{"labels": n.Labels}
	}
	return patch
}

// describe gives a registered node its labels and pod range. The administrator may set labels that a kubelet may not.
func (a *api) describe(n Node) error {
	patch, err := json.Marshal(description(n))
	if err != nil {
		return err
	}
	_, err = a.do(http.MethodPatch, "/api/v1/nodes/"+n.Name, "application/merge-patch+json", patch)
	return err
}

func (a *api) nodeReady(name string) error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := a.get("/api/v1/nodes/"+name, &node); err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" {
			if c.Status == "True" {
				return nil
			}
			return fmt.Errorf("node %s is not Ready: %s", name, c.Message)
		}
	}
	return fmt.Errorf("node %s has no Ready condition yet", name)
}

func (a *api) dnsReady() error {
	var deployment struct{ Status struct{ ReadyReplicas int } }
	if err := a.get("/apis/apps/v1/namespaces/kube-system/deployments/coredns", &deployment); err != nil {
		return err
	}
	if deployment.Status.ReadyReplicas == 0 {
		return fmt.Errorf("no CoreDNS pod is Ready")
	}
	return nil
}

// apply server-side-applies each document of a manifest.
func (a *api) apply(manifest string) error {
	for _, document := range strings.Split(manifest, "\n---\n") {
		var object struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			return err
		}
		base := "/apis/" + object.APIVersion
		if object.APIVersion == "v1" {
			base = "/api/v1"
		}
		if ns := object.Metadata.Namespace; ns != "" {
			base += "/namespaces/" + ns
		}
		plural := strings.ToLower(object.Kind) + "s" // true of every kind that we apply
		path := fmt.Sprintf("%s/%s/%s?fieldManager=kubebox&force=true", base, plural, object.Metadata.Name)
		if _, err := a.do(http.MethodPatch, path, "application/apply-patch+yaml", []byte(document)); err != nil {
			return err
		}
	}
	return nil
}
