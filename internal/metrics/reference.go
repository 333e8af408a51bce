package metrics

import (
	"fmt"
	"slices"
	"strings"
)

// Labels that have other values elsewhere, as [Reference] calls them.
const (
	campaignReason = "reason of a campaign"
	campaignState  = "state of a campaign's rows"
)

// labelTexts explain the labels. What is in the list of values that [Reference] gets
// is listed behind them.
var labelTexts = []struct{ label, text string }{
	{"provider", "A provider."},
	{"lane", "A lane."},
	{"outcome", "What is known of a request after it was made."},
	{"reason", "Why, in a word; empty for an accepted request, and `other` for a word that this version does not know."},
	{campaignReason, "In `otpq_campaign_paused`: `operator` when somebody has paused it; it goes on by itself from the others."},
	{"state", "In `otpq_messages_total` the state that the message ended in; elsewhere as the metric says."},
	{campaignState, "In `otpq_campaign_rows`: `waiting` are not in the queue yet; `invalid` and `duplicate` are never sent."},
	{"campaign", "A campaign's id, as `otpq campaign list` shows it."},
	{"kind", "What was wrong."},
	{"queue", "asynq's name of a queue: `otpq:PROVIDER:LANE`, and with a number behind it where a lane has several."},
	{"part", "What a request to the dashboard was for."},
	{"code", "The HTTP status of the answer."},
	{"version", "The version of otpq, as `otpq --version` prints it."},
	{"goversion", "The version of Go that it was built with."},
}

// Reference describes all metrics, as Markdown. values are what labels can be, by
// label, where somebody else knows.
func Reference(values map[string][]string) string {
	var b strings.Builder
	b.WriteString("# Metrics\n\n" +
		"<!-- Generated from internal/metrics; `go test ./deploy -run TestTheMetricsReference -update` writes it. -->\n\n" +
		"A worker serves these on `/metrics` at `admin.listen`, a dashboard those that are not a worker's own at\n" +
		"`dashboard.listen`, with Go's own (`go_…`) and the process's (`process_…`) beside them. Labels are closed\n" +
		"sets, but for the ids of campaigns. What may happen is there at zero before it does.\n")
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n", s.title, s.text)
		for _, m := range s.specs {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, ticked(m.labels), m.meaning())
		}
	}
	b.WriteString("\n## Labels\n\n| label | meaning | values |\n|---|---|---|\n")
	for _, l := range labelTexts {
		list := values[l.label]
		if l.label == "kind" {
			list = redisKinds()
		}
		name, rest, _ := strings.Cut(l.label, " ")
		if rest != "" {
			rest = " " + rest
		}
		fmt.Fprintf(&b, "| `%s`%s | %s | %s |\n", name, rest, l.text, ticked(list))
	}
	return b.String()
}

func (s spec) meaning() string {
	if s.kind != histogramKind {
		return s.help
	}
	return fmt.Sprintf("%s Buckets from %g to %g s.", s.help, s.buckets[0], s.buckets[len(s.buckets)-1])
}

func ticked(words []string) string {
	out := slices.Clone(words)
	for i, w := range out {
		out[i] = "`" + w + "`"
	}
	return strings.Join(out, ", ")
}

// Names lists the metrics that [Reference] describes, with their types: those that any
// of the processes serves.
func Names(by ...Process) map[string]string {
	out := map[string]string{}
	for _, s := range sections {
		if !slices.ContainsFunc(s.by, func(p Process) bool { return slices.Contains(by, p) }) {
			continue
		}
		for _, m := range s.specs {
			out[m.name] = string(m.kind)
		}
	}
	return out
}
