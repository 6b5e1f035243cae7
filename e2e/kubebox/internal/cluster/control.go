package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"sconce.dev/e2e/kubebox/internal/link"
)

func (c *Cluster) socket() string { return c.path("ctl.sock") }

// controlHandler is the supervisor's side of 'link' and 'node'.
func (s *supervision) controlHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, act func(Node, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			n, err := s.node(r.PathValue("node"))
			if err == nil {
				err = act(n, r)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		})
	}
	handle("POST /nodes/{node}/start", func(n Node, _ *http.Request) error { return s.startNode(n) })
	handle("POST /nodes/{node}/stop", func(n Node, _ *http.Request) error { return s.stopNode(n) })
	handle("PUT /nodes/{node}/link", func(n Node, r *http.Request) error {
		var shape link.Shape
		if err := json.NewDecoder(r.Body).Decode(&shape); err != nil {
			return err
		}
		return s.shape(n, shape)
	})
	return mux
}

func (c *Cluster) call(method, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.socket())
	}}}
	request, err := http.NewRequest(method, "http://kubebox"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("the supervisor of cluster %s does not answer: %w", c.Name, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", strings.TrimSpace(string(answer)))
	}
	return err
}

// StartNode boots a stopped node with the state that it had.
func (c *Cluster) StartNode(name string) error { return c.call("POST", "/nodes/"+name+"/start", nil) }

// StopNode ends a node as a power cut does.
func (c *Cluster) StopNode(name string) error { return c.call("POST", "/nodes/"+name+"/stop", nil) }

// SetLink applies settings over the link's shape in the file; with none given it restores that shape. It returns, in words, what was set.
func (c *Cluster) SetLink(name, delay, jitter, loss, rate string, down bool) (string, error) {
	n, err := c.node(name)
	if err != nil {
		return "", err
	}
	if n.Link == nil && delay+jitter+loss+rate != "" {
		return "", fmt.Errorf("node %s has no link in the cluster's file, so it can only be cut with --down; to shape it, add 'link: {}' there", name)
	}
	var shape link.Shape
	if n.Link != nil {
		shape = *n.Link
	}
	if shape, err = shape.Override(delay, jitter, loss, rate); err != nil {
		return "", err
	}
	shape.Down = down
	text := shape.String()
	if n.Link == nil && !down {
		text = "plain cable"
	}
	return text, c.call("PUT", "/nodes/"+name+"/link", shape)
}
