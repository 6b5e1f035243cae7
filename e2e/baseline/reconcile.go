package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// As many as the operator writes at a time.
var wide = controller.Options{MaxConcurrentReconciles: 16}

const zone, tier = "topology.kubernetes.io/zone", "sconce.dev/tier"

func kind(name string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(schema.GroupVersionKind{Group: "sconce.dev", Version: "v1alpha1", Kind: name})
	return object
}

func list(name string) *unstructured.UnstructuredList {
	objects := &unstructured.UnstructuredList{}
	objects.SetGroupVersionKind(schema.GroupVersionKind{Group: "sconce.dev", Version: "v1alpha1", Kind: name + "List"})
	return objects
}

func waitForSync(mgr ctrl.Manager) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		return errors.New("listing")
	}
	return nil
}

// registerSites makes an EdgeSite for each zone of the edge.
func registerSites(mgr ctrl.Manager) error {
	c := mgr.GetClient()
	return ctrl.NewControllerManagedBy(mgr).For(&corev1.Node{}).WithOptions(wide).Complete(
		reconcile.Func(func(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
			node := &corev1.Node{}
			if err := c.Get(ctx, request.NamespacedName, node); err != nil {
				return ctrl.Result{}, client.IgnoreNotFound(err)
			}
			site := kind("EdgeSite")
			name := node.Labels[zone]
			if node.Labels[tier] != "edge" || c.Get(ctx, types.NamespacedName{Name: name}, site) == nil {
				return ctrl.Result{}, nil
			}
			site.SetName(name)
			site.Object["spec"] = map[string]any{"fleetRef": map[string]any{"name": "scale"}}
			return ctrl.Result{}, c.Create(ctx, site)
		}))
}

// registerModels makes an EdgePlacement for each model and site.
func registerModels(mgr ctrl.Manager) error {
	c := mgr.GetClient()
	everyModel := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []ctrl.Request {
		models, requests := list("EdgeModel"), []ctrl.Request{}
		if c.List(ctx, models) == nil {
			for i := range models.Items {
				requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&models.Items[i])})
			}
		}
		return requests
	})
	return ctrl.NewControllerManagedBy(mgr).For(kind("EdgeModel")).Watches(kind("EdgeSite"), everyModel).WithOptions(wide).Complete(
		reconcile.Func(func(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
			model, sites := kind("EdgeModel"), list("EdgeSite")
			if err := c.Get(ctx, request.NamespacedName, model); err != nil {
				return ctrl.Result{}, client.IgnoreNotFound(err)
			}
			if err := c.List(ctx, sites); err != nil {
				return ctrl.Result{}, err
			}
			for i := range sites.Items {
				if err := place(ctx, c, mgr, model, sites.Items[i].GetName()); err != nil {
					return ctrl.Result{}, err
				}
			}
			return ctrl.Result{}, nil
		}))
}

func place(ctx context.Context, c client.Client, mgr ctrl.Manager, model *unstructured.Unstructured, site string) error {
	placement := kind("EdgePlacement")
	placement.SetNamespace(model.GetNamespace())
	placement.SetName(fmt.Sprintf("%s-%x", model.GetName(), sha256.Sum256([]byte(site)))[:len(model.GetName())+9])
	_, err := controllerutil.CreateOrUpdate(ctx, c, placement, func() error {
		placement.SetLabels(map[string]string{managedBy: manager, "sconce.dev/model": model.GetName(), "sconce.dev/site": site})
		reference := func(name string) map[string]any { return map[string]any{"name": name} }
		placement.Object["spec"] = map[string]any{
			"modelRef": reference(model.GetName()), "siteRef": reference(site), "versionRef": reference(model.GetName() + "-1"),
		}
		return controllerutil.SetControllerReference(model, placement, mgr.GetScheme())
	})
	return err
}

// registerPlacements makes the Deployment of each placement, and says in its status how it is.
func registerPlacements(mgr ctrl.Manager, image string) error {
	c := mgr.GetClient()
	return ctrl.NewControllerManagedBy(mgr).For(kind("EdgePlacement")).Owns(&appsv1.Deployment{}).WithOptions(wide).Complete(
		reconcile.Func(func(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
			placement := kind("EdgePlacement")
			if err := c.Get(ctx, request.NamespacedName, placement); err != nil {
				return ctrl.Result{}, client.IgnoreNotFound(err)
			}
			site, _, _ := unstructured.NestedString(placement.Object, "spec", "siteRef", "name")
			nodes := &corev1.NodeList{}
			if err := c.List(ctx, nodes, client.MatchingLabels{zone: site}); err != nil || len(nodes.Items) == 0 {
				return ctrl.Result{}, err
			}
			deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: request.Namespace, Name: request.Name}}
			if _, err := controllerutil.CreateOrUpdate(ctx, c, deployment, func() error {
				deployment.Labels = map[string]string{managedBy: manager, "sconce.dev/site": site}
				render(deployment, nodes.Items[0].Name, image)
				return controllerutil.SetControllerReference(placement, deployment, mgr.GetScheme())
			}); err != nil {
				return ctrl.Result{}, err
			}
			return ctrl.Result{}, report(ctx, c, placement, deployment, nodes.Items[0].Name)
		}))
}

// render leaves alone what the API server fills in.
func render(deployment *appsv1.Deployment, node, image string) {
	labels := map[string]string{"app.kubernetes.io/name": "sconce-model", "app.kubernetes.io/instance": deployment.Name}
	replicas, history, no, yes, user := int32(1), int32(1), false, true, int64(65532)
	spec := &deployment.Spec
	spec.Replicas, spec.RevisionHistoryLimit = &replicas, &history
	spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	spec.Template.Labels = labels
	pod := &spec.Template.Spec
	pod.AutomountServiceAccountToken, pod.EnableServiceLinks = &no, &no
	pod.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user, FSGroup: &user,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	pod.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}},
	}}}
	pod.Tolerations = []corev1.Toleration{
		{Key: "node.kubernetes.io/not-ready", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
		{Key: "node.kubernetes.io/unreachable", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	}
	pod.InitContainers = container(pod.InitContainers, "fetch", image)
	pod.Containers = container(pod.Containers, "serve", image)
	pod.Containers[0].Ports = []corev1.ContainerPort{{Name: "grpc", ContainerPort: 8001, Protocol: corev1.ProtocolTCP}}
}

func container(old []corev1.Container, name, image string) []corev1.Container {
	if len(old) != 1 {
		old = make([]corev1.Container, 1)
	}
	no, yes := false, true
	old[0].Name, old[0].Image, old[0].Args = name, image, []string{name, "--model", "/models"}
	old[0].Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("27Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("96Mi")},
	}
	old[0].SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	return old
}

// report writes the status if it differs.
func report(ctx context.Context, c client.Client, placement *unstructured.Unstructured, deployment *appsv1.Deployment, node string) error {
	truth, reason := "False", "Starting"
	if deployment.Status.ReadyReplicas > 0 {
		truth, reason = "True", "Ready"
	}
	conditions, _, _ := unstructured.NestedSlice(placement.Object, "status", "conditions")
	if len(conditions) > 0 && conditions[0].(map[string]any)["status"] == truth {
		return nil
	}
	now := time.Now().UTC().Format(time.RFC3339)
	says := []any{}
	for _, kind := range []string{"Ready", "Placed", "Serving", "WithinBudget"} {
		says = append(says, map[string]any{"type": kind, "status": truth, "reason": reason, "message": "as its Deployment says", "lastTransitionTime": now})
	}
	changed := placement.DeepCopy()
	changed.Object["status"] = map[string]any{
		"decision":   map[string]any{"tier": "Edge", "nodes": []any{node}, "variant": "f32", "replicas": int64(1), "reason": "ChosenAtEdge", "since": now},
		"conditions": says,
	}
	return c.Status().Update(ctx, changed)
}
