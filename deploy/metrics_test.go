package deploy_test

import (
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/enqueue/campaign"
	dash "github.com/otpq/otpq/internal/dashboard"
	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

var update = flag.Bool("update", false, "write the generated documents instead of comparing them")

func TestTheMetricsReferenceIsUpToDate(t *testing.T) {
	values := map[string][]string{"reason": worker.Reasons()}
	for _, d := range all.All() {
		values["provider"] = append(values["provider"], d.Name)
	}
	for _, l := range tasks.Lanes() {
		values["lane"] = append(values["lane"], string(l))
	}
	for _, k := range []providers.Kind{providers.Accepted, providers.Rejected, providers.RetryLater, providers.Ambiguous} {
		values["outcome"] = append(values["outcome"], k.String())
	}
	for _, s := range status.States() {
		if s.Terminal() && s != status.Canceled {
			values["state"] = append(values["state"], string(s))
		}
	}
	values["part"] = dash.Parts()
	values["reason of a campaign"] = []string{
		campaign.ReasonOperator, campaign.ReasonQuietHours, campaign.ReasonBreakerOpen, campaign.ReasonFailures,
	}
	counts, err := json.Marshal(campaign.Counts{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"(\w+)"`).FindAllStringSubmatch(string(counts), -1) {
		if m[1] != "rows" {
			values["state of a campaign's rows"] = append(values["state of a campaign's rows"], m[1])
		}
	}
	const file = "../docs/metrics.md"
	got := metrics.Reference(values)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(read(t, file), got); diff != "" {
		t.Errorf("docs/metrics.md is not what the code says; go test ./deploy -run %s -update writes it (-file +code):\n%s", t.Name(), diff)
	}
}
