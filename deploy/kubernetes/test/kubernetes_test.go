package test

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// secrets are the files that an operator puts into the overlay.
var secrets = map[string]string{
	"sealing-key":     "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
	"medsenior-token": "token-of-the-test",
	"redis-url":       "redis://127.0.0.1:1/0",
}

// dashboardSecrets are those of the component dashboard, by the file and the key.
var dashboardSecrets = map[string]struct{ key, value string }{
	"dashboard-users":     {"users", "ana:$2a$04$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe\n"}, // password1
	"dashboard-redis-url": {"redis-url", "redis://127.0.0.1:1/0"},
}

// cluster is all that an overlay builds.
type cluster struct {
	namespace  corev1.Namespace
	account    corev1.ServiceAccount
	deployment appsv1.Deployment
	disruption policyv1.PodDisruptionBudget
	network    networkingv1.NetworkPolicy
	config     corev1.ConfigMap
	secret     corev1.Secret
	monitor    podMonitor
	scaled     scaledObject
	kinds      []string

	dashboard *dashboard // nil without the component
}

// dashboard is what the component dashboard adds.
type dashboard struct {
	account    corev1.ServiceAccount
	deployment appsv1.Deployment
	network    networkingv1.NetworkPolicy
	service    corev1.Service
	secret     corev1.Secret
	kinds      []string
}

type meta struct{ Name, Namespace string }

// podMonitor is the Prometheus Operator's resource, as far as it is used here.
type podMonitor struct {
	APIVersion string `json:"apiVersion"`
	Kind       string
	Metadata   meta
	Spec       struct {
		Selector            struct{ MatchLabels map[string]string }
		PodMetricsEndpoints []struct {
			Port, Path  string
			Relabelings []struct{ TargetLabel, Replacement string }
		}
	}
}

// scaledObject is KEDA's.
type scaledObject struct {
	APIVersion string `json:"apiVersion"`
	Kind       string
	Metadata   meta
	Spec       struct {
		ScaleTargetRef                                    struct{ Name string }
		MinReplicaCount, MaxReplicaCount, PollingInterval int
		Advanced                                          map[string]any
		Triggers                                          []struct {
			Type, MetricType string
			Metadata         map[string]string
		}
	}
}

// build builds the example overlay, with components if any are named, and reads all of
// it: an unknown field is an error.
func build(t *testing.T, components ...string) *cluster {
	t.Helper()
	root := t.TempDir()
	for _, folder := range []string{"base", "components", "overlays"} {
		if err := os.CopyFS(filepath.Join(root, folder), os.DirFS(filepath.Join("..", folder))); err != nil {
			t.Fatal(err)
		}
	}
	overlay := filepath.Join(root, "overlays", "example")
	files := maps.Clone(secrets)
	for name, s := range dashboardSecrets {
		files[name] = s.value
	}
	for name, value := range files {
		if err := os.WriteFile(filepath.Join(overlay, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(components) > 0 {
		file := filepath.Join(overlay, "kustomization.yaml")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range components { // as the comment in the file says
			if !strings.Contains(string(text), "../../components/"+c) {
				t.Errorf("the example does not tell of the component %s", c)
			}
		}
		if slices.Contains(components, "dashboard") { // as the end of the file says
			for name, s := range dashboardSecrets {
				if !strings.Contains(string(text), s.key+"="+name) {
					t.Errorf("the example does not make the secret %s of %s", s.key, name)
				}
			}
			head, tail, _ := strings.Cut(string(text), "# With the dashboard:")
			text = []byte(head + "#" + strings.ReplaceAll(tail, "\n#  ", "\n  "))
		}
		text = append(text, "\ncomponents:\n- ../../components/"+strings.Join(components, "\n- ../../components/")+"\n"...)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), overlay)
	if err != nil {
		t.Fatalf("kustomize build: %v", err)
	}
	c := &cluster{}
	into := map[string]any{
		"Namespace": &c.namespace, "ServiceAccount": &c.account, "Deployment": &c.deployment, "PodDisruptionBudget": &c.disruption,
		"NetworkPolicy": &c.network, "ConfigMap": &c.config, "Secret": &c.secret, "PodMonitor": &c.monitor, "ScaledObject": &c.scaled,
	}
	ofDashboard := map[string]any{}
	if slices.Contains(components, "dashboard") {
		c.dashboard = &dashboard{}
		d := c.dashboard
		ofDashboard = map[string]any{
			"ServiceAccount": &d.account, "Deployment": &d.deployment, "NetworkPolicy": &d.network, "Service": &d.service, "Secret": &d.secret,
		}
	}
	for _, r := range resources.Resources() {
		into, kinds := into, &c.kinds
		if c.dashboard != nil && strings.HasPrefix(r.GetName(), "otpq-dashboard") {
			into, kinds = ofDashboard, &c.dashboard.kinds
		}
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		target := into[r.GetKind()]
		if target == nil || slices.Contains(*kinds, r.GetKind()) {
			t.Fatalf("a %s too many, or of a kind that this test does not know:\n%s", r.GetKind(), text)
		}
		if err := yaml.UnmarshalStrict(text, target); err != nil {
			t.Errorf("%s %s: %v", r.GetKind(), r.GetName(), err)
		}
		if r.GetKind() != "Namespace" && r.GetNamespace() != "otpq" {
			t.Errorf("%s %s is in the namespace %q, want otpq", r.GetKind(), r.GetName(), r.GetNamespace())
		}
		*kinds = append(*kinds, r.GetKind())
	}
	return c
}

func (c *cluster) worker(t *testing.T) corev1.Container {
	t.Helper()
	containers := c.deployment.Spec.Template.Spec.Containers
	if len(containers) != 1 || len(c.deployment.Spec.Template.Spec.InitContainers) > 0 {
		t.Fatalf("%d containers, want the worker alone", len(containers))
	}
	return containers[0]
}

// container is the one that a pod of the dashboard has.
func (d *dashboard) container(t *testing.T) corev1.Container {
	t.Helper()
	containers := d.deployment.Spec.Template.Spec.Containers
	if len(containers) != 1 || len(d.deployment.Spec.Template.Spec.InitContainers) > 0 {
		t.Fatalf("%d containers, want the dashboard alone", len(containers))
	}
	return containers[0]
}

func TestTheOverlayBuildsAllThatAWorkerNeeds(t *testing.T) {
	c := build(t)
	for _, kind := range []string{"Namespace", "ServiceAccount", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap", "Secret"} {
		if !slices.Contains(c.kinds, kind) {
			t.Errorf("there is no %s", kind)
		}
	}
	if c.deployment.Spec.Template.Spec.ServiceAccountName != c.account.Name {
		t.Errorf("the pods are those of %q, and the account is %q", c.deployment.Spec.Template.Spec.ServiceAccountName, c.account.Name)
	}
	image := c.worker(t).Image
	if _, tag, ok := strings.Cut(image, ":"); !ok || tag == "latest" {
		t.Errorf("image %q, want a version", image)
	}
}

func TestEveryConfigMapAndSecretThatIsNamedExists(t *testing.T) {
	c := build(t)
	pod := c.deployment.Spec.Template.Spec
	secret := func(name, key string) {
		if _, ok := c.secret.Data[key]; name != c.secret.Name || !ok {
			t.Errorf("secret %s, key %s, is not there: there is %s", name, key, c.secret.Name)
		}
	}
	named := 0
	for _, e := range c.worker(t).Env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			secret(e.ValueFrom.SecretKeyRef.Name, e.ValueFrom.SecretKeyRef.Key)
			named++
		}
	}
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
		switch {
		case v.Secret != nil:
			for _, i := range v.Secret.Items {
				secret(v.Secret.SecretName, i.Key)
				named++
			}
		case v.ConfigMap != nil && v.ConfigMap.Name != c.config.Name:
			t.Errorf("config map %s is not there: there is %s", v.ConfigMap.Name, c.config.Name)
		}
	}
	if named < len(secrets) {
		t.Errorf("%d secrets are used, want all %d", named, len(secrets))
	}
	for _, m := range c.worker(t).VolumeMounts {
		if !volumes[m.Name] {
			t.Errorf("volume %s is not there", m.Name)
		}
		if _, ok := c.config.Data[m.SubPath]; m.SubPath != "" && !ok {
			t.Errorf("%s is not in the config map", m.SubPath)
		}
		if !m.ReadOnly {
			t.Errorf("the worker may write to %s", m.MountPath)
		}
	}
	// Every path in the configuration is one of a file that is mounted.
	paths := regexp.MustCompile(`_file: (\S+?)[,}\n]`).FindAllStringSubmatch(c.config.Data["otpq.yaml"], -1)
	if len(paths) < 2 {
		t.Fatalf("%d files are named in the configuration", len(paths))
	}
	for _, p := range paths {
		if _, ok := c.secret.Data[filepath.Base(p[1])]; !ok || filepath.Dir(p[1]) != "/etc/otpq/secrets" {
			t.Errorf("the configuration names %s, where nothing is mounted", p[1])
		}
	}
	for key, value := range c.secret.Data {
		if _, err := base64.StdEncoding.DecodeString(secrets["sealing-key"]); err != nil || string(value) != secrets[key] {
			t.Errorf("secret %s is not what was in its file", key)
		}
	}
}

func TestThePodsAreLockedDown(t *testing.T) {
	c := build(t, "dashboard")
	for name, of := range map[string]struct {
		pod       corev1.PodSpec
		container corev1.Container
	}{
		"worker":    {c.deployment.Spec.Template.Spec, c.worker(t)},
		"dashboard": {c.dashboard.deployment.Spec.Template.Spec, c.dashboard.container(t)},
	} {
		t.Run(name, func(t *testing.T) { isLockedDown(t, c, of.pod, of.container) })
	}
}

func isLockedDown(t *testing.T, c *cluster, pod corev1.PodSpec, w corev1.Container) {
	t.Helper()
	s, own := pod.SecurityContext, w.SecurityContext
	for what, ok := range map[string]bool{
		"not root":           s != nil && s.RunAsNonRoot != nil && *s.RunAsNonRoot && s.RunAsUser != nil && *s.RunAsUser > 0,
		"a seccomp profile":  s != nil && s.SeccompProfile != nil && s.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"a read-only root":   own != nil && own.ReadOnlyRootFilesystem != nil && *own.ReadOnlyRootFilesystem,
		"no new privileges":  own != nil && own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation,
		"no capabilities":    own != nil && own.Capabilities != nil && slices.Equal(own.Capabilities.Drop, []corev1.Capability{"ALL"}),
		"no token":           pod.AutomountServiceAccountToken != nil && !*pod.AutomountServiceAccountToken,
		"a limit of memory":  !w.Resources.Limits.Memory().IsZero(),
		"a request of CPU":   !w.Resources.Requests.Cpu().IsZero(),
		"no host's network":  !pod.HostNetwork && !pod.HostPID && !pod.HostIPC,
		"a strict namespace": c.namespace.Labels["pod-security.kubernetes.io/enforce"] == "restricted",
	} {
		if !ok {
			t.Errorf("want %s", what)
		}
	}
	// The image's user, which has to be able to read what is mounted.
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("USER %d:%d", *s.RunAsUser, *s.RunAsGroup); !strings.Contains(string(dockerfile), want) {
		t.Errorf("the Dockerfile does not say %s", want)
	}
	for _, v := range pod.Volumes {
		if v.Secret != nil && (v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440) {
			t.Errorf("secret %s has the mode %v, want 0440", v.Name, v.Secret.DefaultMode)
		}
	}
}

func TestAWorkerIsGivenTimeToFinish(t *testing.T) {
	c := build(t)
	var cfg struct {
		Worker struct {
			ShutdownTimeout string `json:"shutdown_timeout"`
		}
	}
	if err := yaml.Unmarshal([]byte(c.config.Data["otpq.yaml"]), &cfg); err != nil {
		t.Fatal(err)
	}
	timeout, err := time.ParseDuration(cfg.Worker.ShutdownTimeout)
	if err != nil {
		t.Fatal(err)
	}
	const around = 20 * time.Second // as in the test of docker-compose.yml
	grace := c.deployment.Spec.Template.Spec.TerminationGracePeriodSeconds
	if grace == nil {
		t.Fatal("there is no terminationGracePeriodSeconds")
	}
	if time.Duration(*grace)*time.Second < timeout+around {
		t.Errorf("terminationGracePeriodSeconds = %d, want %s at least", *grace, timeout+around)
	}
}

// A selector that matches nothing says nothing: there is a budget, and it guards nobody.
func TestTheSelectorsMatchThePods(t *testing.T) {
	c := build(t, "podmonitor", "keda")
	pods := c.deployment.Spec.Template.Labels
	if c.disruption.Spec.Selector == nil {
		t.Fatal("the PodDisruptionBudget guards nobody")
	}
	for who, labels := range map[string]map[string]string{
		"the Deployment": c.deployment.Spec.Selector.MatchLabels, "the PodDisruptionBudget": c.disruption.Spec.Selector.MatchLabels,
		"the NetworkPolicy": c.network.Spec.PodSelector.MatchLabels, "the PodMonitor": c.monitor.Spec.Selector.MatchLabels,
		"the spread over nodes": c.deployment.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
	} {
		if len(labels) == 0 {
			t.Errorf("%s selects all pods there are", who)
		}
		for k, v := range labels {
			if pods[k] != v {
				t.Errorf("%s selects pods with %s=%s, and ours have %q", who, k, v, pods[k])
			}
		}
	}
	if n := c.scaled.Spec.ScaleTargetRef.Name; n != c.deployment.Name {
		t.Errorf("KEDA scales %q, and the deployment is %q", n, c.deployment.Name)
	}
	if c.deployment.Spec.Replicas != nil {
		t.Error("the deployment has a number of pods, which takes back what KEDA does")
	}
	if least := c.disruption.Spec.MinAvailable.IntValue(); least >= c.scaled.Spec.MinReplicaCount || least < 1 {
		t.Errorf("%d pods have to stay of %d: no node could be drained, or all of them at once", least, c.scaled.Spec.MinReplicaCount)
	}
}

func TestReplicasAndBudgetLetANodeBeDrained(t *testing.T) {
	c := build(t)
	least := c.disruption.Spec.MinAvailable.IntValue()
	if n := int(*c.deployment.Spec.Replicas); least < 1 || least >= n {
		t.Errorf("%d of %d pods have to stay", least, n)
	}
}

func TestPortsAreThoseThatThePodsHave(t *testing.T) {
	c := build(t, "dashboard", "podmonitor", "keda")
	ports := map[string]int32{}
	for _, p := range append(c.worker(t).Ports, c.dashboard.container(t).Ports...) {
		if ports[p.Name] != 0 {
			t.Errorf("two pods have a port %s, which Prometheus could not tell apart", p.Name)
		}
		ports[p.Name] = p.ContainerPort
	}
	if !strings.Contains(c.config.Data["otpq.yaml"], fmt.Sprintf("listen: 0.0.0.0:%d\n", ports["admin"])) {
		t.Errorf("the worker does not listen on %d", ports["admin"])
	}
	if !slices.Contains(c.dashboard.container(t).Args, fmt.Sprintf("0.0.0.0:%d", ports["dashboard"])) {
		t.Errorf("the dashboard does not listen on %d", ports["dashboard"])
	}
	if p := c.dashboard.service.Spec.Ports; len(p) != 1 || p[0].TargetPort.String() != "dashboard" {
		t.Errorf("the service leads to %v, want the port dashboard", p)
	}
	if len(c.monitor.Spec.PodMetricsEndpoints) != 2 {
		t.Errorf("Prometheus asks %d ports, want the worker's and the dashboard's", len(c.monitor.Spec.PodMetricsEndpoints))
	}
	jobs := map[string]string{"admin": "otpq-worker", "dashboard": "otpq-dashboard"} // as in prometheus.yml
	prometheus, err := os.ReadFile("../../prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range c.monitor.Spec.PodMetricsEndpoints {
		if ports[e.Port] == 0 || e.Path != "/metrics" {
			t.Errorf("Prometheus asks %s on port %q", e.Path, e.Port)
		}
		i := slices.IndexFunc(e.Relabelings, func(r struct{ TargetLabel, Replacement string }) bool { return r.TargetLabel == "job" })
		if i < 0 || e.Relabelings[i].Replacement != jobs[e.Port] || !strings.Contains(string(prometheus), "job_name: "+jobs[e.Port]+"\n") {
			t.Errorf("the job of %s has not the name that the alerts go by", e.Port)
		}
	}
	for name, rules := range map[string][]networkingv1.NetworkPolicyIngressRule{"admin": c.network.Spec.Ingress, "dashboard": c.dashboard.network.Spec.Ingress} {
		for _, rule := range rules {
			for _, p := range rule.Ports {
				if p.Port.String() != name {
					t.Errorf("the network policy opens port %s, want %s", p.Port, name)
				}
			}
			if len(rule.From) == 0 {
				t.Errorf("the network policy opens %s to everybody", name)
			}
		}
	}
}

// The dashboard calls no provider, and has nothing that opens a message.
func TestTheDashboardHasWhatItNeedsAndNoMore(t *testing.T) {
	c := build(t, "dashboard")
	d := c.dashboard
	for _, kind := range []string{"ServiceAccount", "Deployment", "Service", "NetworkPolicy", "Secret"} {
		if !slices.Contains(d.kinds, kind) {
			t.Errorf("there is no %s", kind)
		}
	}
	pod, w := d.deployment.Spec.Template, d.container(t)
	if pod.Spec.ServiceAccountName != d.account.Name || w.Image != c.worker(t).Image {
		t.Errorf("account %q and image %q, want %q and %q", pod.Spec.ServiceAccountName, w.Image, d.account.Name, c.worker(t).Image)
	}
	for who, labels := range map[string]map[string]string{
		"the Deployment": d.deployment.Spec.Selector.MatchLabels, "the Service": d.service.Spec.Selector,
		"the NetworkPolicy": d.network.Spec.PodSelector.MatchLabels,
	} {
		if len(labels) == 0 {
			t.Errorf("%s selects all pods there are", who)
		}
		others := true
		for k, v := range labels {
			if pod.Labels[k] != v {
				t.Errorf("%s selects pods with %s=%s, and these have %q", who, k, v, pod.Labels[k])
			}
			others = others && c.deployment.Spec.Template.Labels[k] == v
		}
		if others {
			t.Errorf("%s selects workers too", who)
		}
	}
	for _, rule := range d.network.Spec.Egress {
		for _, p := range rule.Ports {
			if p.Port.IntValue() == 443 {
				t.Error("the dashboard may call the providers")
			}
		}
	}
	want := map[string]bool{}
	for _, s := range dashboardSecrets {
		want[s.key] = true
		if string(d.secret.Data[s.key]) != s.value {
			t.Errorf("secret %s is %q, want what is in its file", s.key, d.secret.Data[s.key])
		}
	}
	for _, v := range pod.Spec.Volumes {
		for _, i := range v.Secret.Items {
			if v.Secret.SecretName != d.secret.Name || !want[i.Key] {
				t.Errorf("secret %s of %s is mounted, and is not the dashboard's", i.Key, v.Secret.SecretName)
			}
		}
	}
	for _, e := range w.Env {
		if e.ValueFrom != nil && (e.ValueFrom.SecretKeyRef.Name != d.secret.Name || !want[e.ValueFrom.SecretKeyRef.Key]) {
			t.Errorf("%s comes from %s, which is not the dashboard's", e.Name, e.ValueFrom.SecretKeyRef.Name)
		}
	}
	if slices.Contains(w.Args, "--write") {
		t.Error("the dashboard may act")
	}
}

func TestKEDAAsksForMetricsThatThereAre(t *testing.T) {
	c := build(t, "keda")
	reference, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.scaled.Spec.Triggers) == 0 {
		t.Fatal("no trigger")
	}
	for _, trigger := range c.scaled.Spec.Triggers {
		names := regexp.MustCompile(`otpq_[a-z_]+`).FindAllString(trigger.Metadata["query"], -1)
		if len(names) == 0 {
			t.Errorf("%q asks for no metric of ours", trigger.Metadata["query"])
		}
		for _, n := range names {
			if !strings.Contains(string(reference), "`"+n+"`") {
				t.Errorf("%s is not in docs/metrics.md", n)
			}
		}
	}
}

// The binary is started as the pods would start it, with what is mounted in a folder of
// the test's, and asked what the probes ask.
func TestTheProcessesTakeTheirConfigurationAndHaveWhatTheProbesAsk(t *testing.T) {
	c := build(t, "dashboard")
	binary := filepath.Join(t.TempDir(), "otpq")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-pgo=off", "-o", binary, "./cmd/otpq")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Run("worker", func(t *testing.T) {
		said := startsAndAnswers(t, binary, c.deployment.Spec.Template.Spec, c.secret, c.config, "admin", `"address":"([^"]+)"`)
		if strings.Contains(said, `"provider":"medsenior","why"`) {
			t.Errorf("medsenior is off, though it has a token:\n%s", said)
		}
	})
	t.Run("dashboard", func(t *testing.T) {
		startsAndAnswers(t, binary, c.dashboard.deployment.Spec.Template.Spec, c.dashboard.secret, corev1.ConfigMap{}, "dashboard", `"url":"http://([^"]+)"`)
	})
}

// startsAndAnswers starts what a pod's container would, asks what its probes ask, on the port of
// that name, and returns what it said until it told its address.
func startsAndAnswers(t *testing.T, binary string, pod corev1.PodSpec, secret corev1.Secret, config corev1.ConfigMap, port, tells string) string {
	t.Helper()
	dir := t.TempDir()
	w := pod.Containers[0]
	here := strings.NewReplacer("/etc/otpq", dir+"/etc/otpq", "0.0.0.0:9090", "127.0.0.1:0", "0.0.0.0:8080", "0.0.0.0:0")
	write := func(path, text string) {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range w.VolumeMounts {
		for _, v := range pod.Volumes {
			switch {
			case v.Name != m.Name:
			case v.ConfigMap != nil:
				write(m.MountPath, here.Replace(config.Data[m.SubPath]))
			case v.Secret != nil:
				for _, i := range v.Secret.Items {
					write(filepath.Join(m.MountPath, i.Path), string(secret.Data[i.Key]))
				}
			}
		}
	}
	args := slices.Clone(w.Args)
	for i := range args {
		args[i] = here.Replace(args[i])
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = []string{}
	for _, e := range w.Env {
		value := here.Replace(e.Value)
		if e.ValueFrom != nil {
			value = string(secret.Data[e.ValueFrom.SecretKeyRef.Key])
		}
		cmd.Env = append(cmd.Env, e.Name+"="+value)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()

	var said strings.Builder
	address := ""
	lines := bufio.NewScanner(stderr)
	for address == "" && lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if m := regexp.MustCompile(tells).FindStringSubmatch(lines.Text()); len(m) > 0 {
			address = strings.Replace(m[1], "[::]", "127.0.0.1", 1)
		}
	}
	if address == "" {
		t.Fatalf("it ended, and said:\n%s", said.String())
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	for path, want := range map[string]int{
		"/metrics": http.StatusOK,
		// Without a Redis it is not ready, and is not to be restarted.
		probed(t, w.LivenessProbe, port):  http.StatusOK,
		probed(t, w.ReadinessProbe, port): http.StatusServiceUnavailable,
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		reply.Body.Close()
		if reply.StatusCode != want {
			t.Errorf("%s answers %d, want %d", path, reply.StatusCode, want)
		}
	}
	return said.String()
}

// probed is the path that a probe asks for, on the port of that name.
func probed(t *testing.T, p *corev1.Probe, port string) string {
	t.Helper()
	if p == nil || p.HTTPGet == nil || p.HTTPGet.Port.String() != port {
		t.Fatalf("probe %v, want one of the port %s", p, port)
	}
	return p.HTTPGet.Path
}
