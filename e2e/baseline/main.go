// baseline is what `make bench-scale` measures the operator against: a minimal operator by controller-runtime, written as its
// book teaches, that makes the same objects. It decides nothing: every model runs at every site, on the site's first node. It
// takes the operator's own flags.
package main

import (
	"flag"
	"net/http"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// Objects of ours have this label, as the operator's have.
const managedBy, manager = "app.kubernetes.io/managed-by", "sconce"

func main() {
	flags := flag.NewFlagSet("baseline", flag.ExitOnError)
	image := flags.String("runtime-image", "", "image of the pods")
	health := flags.String("health", ":8081", "address of /readyz")
	metrics := flags.String("metrics", ":8080", "address of /metrics")
	for _, unused := range []string{"trainer-image", "namespace", "insecure-registry"} {
		flags.String(unused, "", "not used")
	}
	if len(os.Args) < 2 || os.Args[1] != "run" {
		println("usage: baseline run --runtime-image IMAGE [--health ADDRESS] [--metrics ADDRESS]")
		os.Exit(2)
	}
	_ = flags.Parse(os.Args[2:]) // ends the program on an error
	ctrl.SetLogger(zap.New())
	if err := run(*image, *health, *metrics); err != nil {
		ctrl.Log.Error(err, "ended")
		os.Exit(1)
	}
}

func run(image, health, metrics string) error {
	config := ctrl.GetConfigOrDie()
	// The default of 20 requests a second would be all that is measured.
	config.QPS, config.Burst = -1, -1
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{managedBy: manager})}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                 scheme.Scheme,
		HealthProbeBindAddress: health,
		Metrics:                server.Options{BindAddress: metrics},
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         map[client.Object]cache.ByObject{&appsv1.Deployment{}: ours},
		},
		// Reads of our kinds come from the cache, too.
		Client: client.Options{Cache: &client.CacheOptions{Unstructured: true}},
	})
	if err != nil {
		return err
	}
	if err := registerModels(mgr); err != nil {
		return err
	}
	if err := registerPlacements(mgr, image); err != nil {
		return err
	}
	if err := registerSites(mgr); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("synced", func(*http.Request) error { return waitForSync(mgr) }); err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}
