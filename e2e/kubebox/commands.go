package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sconce.dev/e2e/kubebox/internal/cluster"
	"sconce.dev/e2e/kubebox/internal/config"
	"sconce.dev/e2e/kubebox/internal/images"
	"sconce.dev/e2e/kubebox/internal/nodeinit"
)

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kubebox",
		Short: "A real Kubernetes of several nodes on one Linux machine",
		Long: `kubebox runs a real Kubernetes of several nodes on one Linux machine, each node in namespaces of its own,
with links between them that can be slowed and cut. It needs root.`,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	pflag.CommandLine.MarkHidden("version") // Kubernetes' packages register it for everyone
	root.SetErrPrefix("kubebox:")
	root.AddCommand(upCommand(), downCommand(), linkCommand(), nodeCommand(), execCommand(), imagesCommand(), kubectlCommand())
	root.AddCommand(internalCommands()...)
	return root
}

// which is how every command names its cluster.
type which struct{ name, dir string }

func (w *which) flags(c *cobra.Command) {
	c.Flags().StringVar(&w.name, "name", "", "the cluster's name (required)")
	c.Flags().StringVar(&w.dir, "dir", "", "the cluster's folder (default /var/lib/kubebox/NAME)")
	c.MarkFlagRequired("name")
}

// resolve checks the name and makes the folder absolute.
func (w *which) resolve() error {
	if err := cluster.CheckName(w.name); err != nil {
		return err
	}
	if w.dir == "" {
		w.dir = cluster.DefaultDir(w.name)
	}
	var err error
	w.dir, err = filepath.Abs(w.dir)
	return err
}

func (w *which) load() (*cluster.Cluster, error) {
	if err := w.resolve(); err != nil {
		return nil, err
	}
	return cluster.Load(w.name, w.dir)
}

func upCommand() *cobra.Command {
	var w which
	var file, bin string
	c := &cluster.Cluster{Processes: map[string]cluster.Process{}}
	command := &cobra.Command{
		Use:   "up --name NAME --config FILE",
		Short: "Make a cluster, wait until it is Ready, and leave it running",
		Long: `Makes the cluster that FILE describes and returns when all of it is Ready; the last line is KUBECONFIG=PATH.
The cluster keeps running in the background until 'kubebox down'. A start that fails removes what it made.

FILE names the nodes. A node with a link gets a cable with that one-way delay (and jitter, loss) and that rate, the
same in each direction; one without gets a plain, fast one. DNS runs on the first node without a link:

  nodes:
  - name: cloud-1
    labels: {topology.kubernetes.io/zone: cloud}
  - name: site-a-1
    labels: {topology.kubernetes.io/zone: site-a}
    link: {delay: 20ms, jitter: 2ms, loss: 0.1%, rate: 50Mbit}`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := w.resolve(); err != nil {
				return err
			}
			nodes, err := config.Load(file)
			if err != nil {
				return err
			}
			if c.Executable, err = os.Executable(); err != nil {
				return err
			}
			if bin == "" {
				bin = filepath.Dir(c.Executable)
			}
			if c.Bin, err = filepath.Abs(bin); err != nil {
				return err
			}
			if c.GraceSeconds < 5 {
				return errors.New("--grace: at least 5, or nodes fall silent between two of their own heartbeats")
			}
			c.Name, c.Dir, c.Nodes = w.name, w.dir, cluster.Place(nodes)
			return cluster.Up(c, cmd.OutOrStdout())
		},
	}
	w.flags(command)
	command.Flags().StringVar(&file, "config", "", "the file that describes the nodes (required)")
	command.Flags().StringVar(&bin, "bin", "", "folder of containerd, runc and the others (default the folder of kubebox)")
	command.Flags().IntVar(&c.APIPort, "api-port", 16443, "port of the API server on 127.0.0.1")
	command.Flags().IntVar(&c.RegistryPort, "registry-port", 15000, "port of the registry on 127.0.0.1")
	command.Flags().IntVar(&c.GraceSeconds, "grace", 50, "seconds that a silent node still counts as Ready")
	command.MarkFlagRequired("config")
	return command
}

func downCommand() *cobra.Command {
	var w which
	command := &cobra.Command{
		Use:   "down --name NAME",
		Short: "Remove a cluster without trace, also after a crash",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := w.resolve(); err != nil {
				return err
			}
			err := cluster.Down(w.name, w.dir)
			if errors.Is(err, cluster.ErrNoCluster) {
				fmt.Fprintf(cmd.OutOrStdout(), "no cluster %s\n", w.name)
				return nil
			}
			return err
		},
	}
	w.flags(command)
	return command
}

func linkCommand() *cobra.Command {
	var w which
	var delay, jitter, loss, rate string
	var down bool
	command := &cobra.Command{
		Use:   "link --name NAME NODE",
		Short: "Shape, cut or restore a node's link",
		Long: `Sets a node's link, both directions alike. What is not given is as in the cluster's file, so a call without any
setting restores that shape (and heals a cut). A node without a link there can only be cut.`,
		Example: `  kubebox link --name demo site-a-1 --loss 1% --rate 8Mbit
  kubebox link --name demo site-a-1 --down
  kubebox link --name demo site-a-1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := w.load()
			if err != nil {
				return err
			}
			shape, err := c.SetLink(args[0], delay, jitter, loss, rate, down)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", args[0], shape)
			}
			return err
		},
	}
	w.flags(command)
	command.Flags().StringVar(&delay, "delay", "", "one-way delay, such as 20ms")
	command.Flags().StringVar(&jitter, "jitter", "", "uniform extra delay, such as 2ms; order is kept")
	command.Flags().StringVar(&loss, "loss", "", "share of frames lost each way, such as 1%")
	command.Flags().StringVar(&rate, "rate", "", "rate each way, such as 8Mbit; 0 lifts the cap")
	command.Flags().BoolVar(&down, "down", false, "cut the link")
	return command
}

func nodeCommand() *cobra.Command {
	command := &cobra.Command{Use: "node", Short: "Stop and start one node"}
	add := func(verb, short string, act func(*cluster.Cluster, string) error) {
		var w which
		sub := &cobra.Command{
			Use: verb + " --name NAME NODE", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				c, err := w.load()
				if err != nil {
					return err
				}
				return act(c, args[0])
			},
		}
		w.flags(sub)
		command.AddCommand(sub)
	}
	add("stop", "End a node as a power cut does; its state stays", (*cluster.Cluster).StopNode)
	add("start", "Boot a stopped node with the state that it had", (*cluster.Cluster).StartNode)
	return command
}

func execCommand() *cobra.Command {
	var w which
	command := &cobra.Command{
		Use:   "exec --name NAME NODE|cp -- COMMAND [ARGUMENT...]",
		Short: "Run a command in all namespaces of a node or of the control plane",
		Long: `Runs a command in all namespaces of a node, or of the control plane (cp). The working folder is /: give absolute
paths. containerd's ctr and the other programs beside kubebox are on the PATH.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := w.load()
			if err != nil {
				return err
			}
			return c.Exec(args[0], args[1:])
		},
	}
	w.flags(command)
	return command
}

func imagesCommand() *cobra.Command {
	var w which
	var user, entrypoint string
	var noCA bool
	command := &cobra.Command{
		Use:   "images --name NAME REF=FILE[:/path/in/image][,FILE...]...",
		Short: "Make images of static programs and push them to the cluster's registry",
		Long: `Makes one scratch image per argument and prints REF@DIGEST for each. The same files give the same digest. Files
get mode 0755; /tmp is there with mode 1777, and so is this machine's bundle of trusted authorities, if it has one.`,
		Example: `  kubebox images --name demo ghcr.io/sconce/operator:dev=target/release/operator`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := w.load()
			if err != nil {
				return err
			}
			for _, spec := range args {
				image, err := images.ParseSpec(spec)
				if err != nil {
					return err
				}
				image.User, image.Entrypoint = user, entrypoint
				if _, err := os.Stat(images.CABundle); err == nil && !noCA {
					image.Files = append(image.Files, images.File{Source: images.CABundle, Path: images.CABundle, Mode: 0o644})
				}
				pushed, err := images.Push(c.RegistryHost(), image)
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), pushed)
			}
			return nil
		},
	}
	w.flags(command)
	command.Flags().StringVar(&user, "user", "65532:65532", "user and group that the image runs as")
	command.Flags().StringVar(&entrypoint, "entrypoint", "", "path in the image to run (default the first file)")
	command.Flags().BoolVar(&noCA, "no-ca", false, "leave out "+images.CABundle)
	return command
}

// kubectlCommand is there for the help; main runs kubectl before these commands are looked at.
func kubectlCommand() *cobra.Command {
	return &cobra.Command{Use: "kubectl", Short: "Run kubectl, which also answers to its own name", Run: func(*cobra.Command, []string) {}}
}

// internalCommands are what the cluster itself runs.
func internalCommands() []*cobra.Command {
	var etcdDir string
	etcd := &cobra.Command{Use: "etcd", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return runEtcd(etcdDir) }}
	etcd.Flags().StringVar(&etcdDir, "data-dir", "", "data folder")
	etcd.MarkFlagRequired("data-dir")
	list := []*cobra.Command{
		etcd,
		{Use: "registry ADDRESS FOLDER [REF=FILE...]", Args: cobra.MinimumNArgs(2), RunE: func(_ *cobra.Command, args []string) error {
			return runRegistry(args[0], args[1], args[2:])
		}},
		{Use: "init FILE", Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error { return nodeinit.Main(args[0]) }},
		{Use: "supervise DIR", Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error { return cluster.Supervise(args[0]) }},
	}
	for _, c := range list {
		c.Hidden = true
	}
	return list
}

// runRegistry serves a registry and fills it with the images that every cluster needs.
func runRegistry(address, folder string, specs []string) error {
	var list []images.Image
	for _, spec := range specs {
		image, err := images.ParseSpec(spec)
		if err != nil {
			return err
		}
		list = append(list, image)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- images.Serve(l, folder) }()
	go func() {
		if err := images.Fill(address, list); err != nil {
			failed <- err
		}
	}()
	return <-failed
}
