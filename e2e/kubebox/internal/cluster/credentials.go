package cluster

import (
	"fmt"
	"os"

	"sconce.dev/e2e/kubebox/internal/pki"
)

// makeCredentials writes every key, certificate and kubeconfig of the cluster.
func (c *Cluster) makeCredentials() error {
	if err := os.MkdirAll(c.path("pki"), 0o700); err != nil {
		return err
	}
	ca, err := pki.NewAuthority("kubebox-ca")
	if err != nil {
		return err
	}
	front, err := pki.NewAuthority("kubebox-front-proxy-ca") // its own: the API server trusts it to name other users
	if err != nil {
		return err
	}
	accounts, err := pki.SigningKey()
	if err != nil {
		return err
	}
	for name, pair := range map[string]pki.Pair{"ca": ca.Pair, "front-proxy-ca": front.Pair, "service-accounts": accounts} {
		if err := c.writePair(name, pair); err != nil {
			return err
		}
	}
	frontClient, err := front.Issue(pki.Subject{Name: "front-proxy-client"})
	if err != nil {
		return err
	}
	if err := c.writePair("front-proxy-client", frontClient); err != nil {
		return err
	}
	masters := []string{"system:masters"}
	subjects := map[string]pki.Subject{
		"apiserver": {Name: "kube-apiserver", Hosts: []string{"127.0.0.1", "localhost", cpIP, kubernetesIP, "kubernetes",
			"kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}},
		"apiserver-kubelet-client": {Name: "kube-apiserver-kubelet-client", Groups: masters},
		"admin":                    {Name: "kubebox-admin", Groups: masters},
		"controller-manager":       {Name: "system:kube-controller-manager"},
		"scheduler":                {Name: "system:kube-scheduler"},
		"proxy":                    {Name: "system:kube-proxy"},
	}
	for _, n := range c.Nodes {
		subjects["kubelet-"+n.Name] = pki.Subject{
			Name: "system:node:" + n.Name, Groups: []string{"system:nodes"}, Hosts: []string{n.IP, n.Name},
		}
	}
	for name, subject := range subjects {
		pair, err := ca.Issue(subject)
		if err != nil {
			return err
		}
		if err := c.writePair(name, pair); err != nil {
			return err
		}
		inside := pki.Kubeconfig("kubebox-"+c.Name, "https://"+apiAddr, ca.Cert, pair)
		if err := os.WriteFile(c.path("pki", name+".conf"), inside, 0o600); err != nil {
			return err
		}
		if name == "admin" {
			outside := pki.Kubeconfig("kubebox-"+c.Name, fmt.Sprintf("https://127.0.0.1:%d", c.APIPort), ca.Cert, pair)
			if err := os.WriteFile(c.Kubeconfig(), outside, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Cluster) writePair(name string, pair pki.Pair) error {
	if err := os.WriteFile(c.path("pki", name+".crt"), pair.Cert, 0o644); err != nil {
		return err
	}
	return os.WriteFile(c.path("pki", name+".key"), pair.Key, 0o600)
}
