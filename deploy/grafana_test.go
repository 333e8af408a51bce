package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// dashboard is what Grafana reads of a dashboard's file.
type dashboard struct {
	UID, Title string
	Templating struct {
		List []struct {
			Name, Type, Definition string
			Current                struct{ Value any }
		}
	}
	Panels []struct {
		ID          int
		Title, Type string
		GridPos     struct{ X, Y, W, H int }
		Targets     []struct {
			RefID string `json:"refId"`
			Expr  string
			// Datasource follows the variable, so that the dashboard works elsewhere.
			Datasource struct{ UID string }
		}
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "grafana/dashboards/otpq.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// plain puts values in the place of Grafana's variables, as it does before it asks.
func plain(expr string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$provider", ".*", "$lane", ".*").Replace(expr)
}

func TestPrometheusUnderstandsWhatTheDashboardAsks(t *testing.T) {
	t.Parallel()
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for _, p := range readDashboard(t).Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			expr := plain(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("panel %q: %s has a variable that the dashboard does not declare", p.Title, expr)
			}
			if unknown := unknownMetrics(expr); len(unknown) > 0 {
				t.Errorf("panel %q asks for %q, which no worker serves", p.Title, unknown)
			}
			if !metricName.MatchString(expr) && !foreign.MatchString(expr) {
				t.Errorf("panel %q asks for no metric: %s", p.Title, expr)
			}
			rules = append(rules, rule{fmt.Sprintf("panel:%d:%s", p.ID, strings.ToLower(target.RefID)), expr})
		}
	}
	if len(rules) < 20 {
		t.Fatalf("only %d expressions were found", len(rules))
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "dashboard.yml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, dir, "check", "rules", "dashboard.yml"); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}

func TestPanelsHaveTheirOwnPlaceAndTitle(t *testing.T) {
	t.Parallel()
	ids, titles, cells := map[int]bool{}, map[string]bool{}, map[[2]int]string{}
	for _, p := range readDashboard(t).Panels {
		if ids[p.ID] || titles[p.Title] || p.Title == "" {
			t.Errorf("panel %d %q has an id or title that another has, or none", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		if p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W < 1 || p.GridPos.H < 1 {
			t.Errorf("panel %q is not on Grafana's 24 columns: %+v", p.Title, p.GridPos)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := cells[cell]; other != "" {
					t.Fatalf("panels %q and %q overlap", p.Title, other)
				}
				cells[cell] = p.Title
			}
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("panel %q asks the data source %q, not the one that is chosen", p.Title, target.Datasource.UID)
			}
		}
	}
}

func TestGrafanaIsProvisionedWithTheDashboardAndItsSource(t *testing.T) {
	t.Parallel()
	type datasources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, UID, Type, Access, URL string
			IsDefault                    bool              `yaml:"isDefault"`
			Editable                     bool              `yaml:"editable"`
			JSONData                     map[string]string `yaml:"jsonData"`
		}
	}
	type providers struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name, Type      string
			DisableDeletion bool `yaml:"disableDeletion"`
			AllowUIUpdates  bool `yaml:"allowUiUpdates"`
			Options         struct{ Path string }
		}
	}
	sources := unmarshal[datasources](t, "grafana/provisioning/datasources/prometheus.yml").Datasources
	boards := unmarshal[providers](t, "grafana/provisioning/dashboards/otpq.yml").Providers
	if len(sources) != 1 || len(boards) != 1 {
		t.Fatalf("%d data sources and %d folders of dashboards, want one each", len(sources), len(boards))
	}
	d := readDashboard(t)
	for _, v := range d.Templating.List {
		if v.Type == "datasource" && v.Current.Value != sources[0].UID {
			t.Errorf("the dashboard starts with the data source %v, and %q is provisioned", v.Current.Value, sources[0].UID)
		}
		if unknown := unknownMetrics(v.Definition); len(unknown) > 0 {
			t.Errorf("variable %s asks for %q, which no worker serves", v.Name, unknown)
		}
	}
	grafana := mustLoadCompose(t, keys, users).Services["grafana"]
	mounted := map[string]string{}
	for _, v := range grafana.Volumes {
		mounted[v.Target] = v.Source
	}
	for target, folder := range map[string]string{boards[0].Options.Path: "grafana/dashboards", "/etc/grafana/provisioning": "grafana/provisioning"} {
		want, err := filepath.Abs(folder)
		if err != nil {
			t.Fatal(err)
		}
		if mounted[target] != want {
			t.Errorf("grafana has %q on %s, want %s", mounted[target], target, want)
		}
	}
	if m := regexp.MustCompile(`^http://([a-z]+):(\d+)$`).FindStringSubmatch(sources[0].URL); len(m) == 0 || mustLoadCompose(t, keys, users).Services[m[1]].Name == "" {
		t.Errorf("the data source is at %s, which is no service of docker-compose.yml", sources[0].URL)
	}
}
