package report

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAQuantileIsOneOfTheValues(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, c := range []struct {
		values  []float64
		q, want float64
	}{
		{[]float64{3}, 0.5, 3},
		{[]float64{1, 2, 30}, 0.5, 2},
		{[]float64{1, 2, 4, 30}, 0.5, 3},
		{hundred, 0.95, 95},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{[]float64{1, 2}, 0.99, 2},
	} {
		if got := Quantile(c.values, c.q); got != c.want {
			t.Errorf("Quantile(%v, %v) = %v, want %v", c.values, c.q, got, c.want)
		}
	}
	if got := Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("Quantile of nothing = %v", got)
	}
}

// sample is a suite of two peers with runs of the given rates, round by round; a
// negative one is of a noisy run, and NaN of one that lost something.
func sample(rates map[string][]float64) *Suite {
	s := &Suite{Name: "drain", Title: "Drain & more", Columns: []Column{{Key: "rate", Title: "messages/s"}, {Key: "none", Title: "never there"}}, Plot: "rate", Messages: 1500}
	for _, name := range []string{"otpq", "asynq"} {
		s.Cases = append(s.Cases, name)
		for round, v := range rates[name] {
			r := Run{Case: name, Round: round, Values: map[string]float64{"rate": math.Abs(v)}, Noisy: v < 0}
			if math.IsNaN(v) {
				r.Values["rate"], r.Problems = 1e9, []string{"1 lost"}
			}
			s.Runs = append(s.Runs, r)
		}
	}
	return s
}

func TestRunsThatDoNotCountAreLeftOut(t *testing.T) {
	lost := math.NaN()
	for name, c := range map[string]struct {
		rates []float64
		want  Figure
	}{
		"all are good":                         {[]float64{30, 10, 20}, Figure{10, 20, 30, 3}},
		"a noisy one beside two quiet ones":    {[]float64{30, -10, 20}, Figure{20, 25, 30, 2}},
		"two noisy ones beside one":            {[]float64{30, -10, -20}, Figure{10, 20, 30, 3}},
		"one that lost a message never counts": {[]float64{lost, -10}, Figure{10, 10, 10, 1}},
		"nothing is left":                      {[]float64{lost}, Figure{}},
	} {
		if diff := cmp.Diff(c.want, sample(map[string][]float64{"otpq": c.rates}).Figure("otpq", "rate")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	s := sample(map[string][]float64{"otpq": {1, lost}})
	if diff := cmp.Diff([]string{"drain, otpq, round 1: 1 lost"}, s.Failures()); diff != "" {
		t.Errorf("Failures() (-want +got):\n%s", diff)
	}
}

func TestARatioIsTakenWithinEachRound(t *testing.T) {
	goal := Goal{Key: "rate", Case: "otpq", Against: "asynq", Bound: 2}
	for name, c := range map[string]struct {
		otpq, asynq []float64
		want        Figure
	}{
		// The medians' ratio would be 20/20.
		"each round's own":         {[]float64{20, 10, 40}, []float64{10, 20, 20}, Figure{0.5, 2, 2, 3}},
		"a round that one lacks":   {[]float64{20, math.NaN(), 30}, []float64{10, 1, 10}, Figure{2, 2.5, 3, 2}},
		"no round that both have":  {[]float64{20, math.NaN()}, []float64{math.NaN(), 10}, Figure{2, 2, 2, 1}},
		"one of them never counts": {[]float64{20}, []float64{math.NaN()}, Figure{}},
	} {
		got := sample(map[string][]float64{"otpq": c.otpq, "asynq": c.asynq}).Ratio(goal)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if !goal.Met(Figure{Median: 2}) || goal.Met(Figure{Median: 1.99}) {
		t.Error("a goal of at least 2 is met by 2 and not by 1.99")
	}
	if most := (Goal{Bound: 2, Most: true}); !most.Met(Figure{Median: 2}) || most.Met(Figure{Median: 2.01}) {
		t.Error("a goal of at most 2 is met by 2 and not by 2.01")
	}
}

func TestFiguresShowTheirSpread(t *testing.T) {
	for _, c := range []struct {
		column Column
		figure Figure
		want   string
	}{
		{Column{}, NewFigure([]float64{1234567}), "1,234,567"},
		{Column{Digits: 1}, NewFigure([]float64{999.94, 1000}), "1,000.0 (999.9–1,000.0)"},
		{Column{Digits: 1}, NewFigure([]float64{2.01, 2.02}), "2.0"},
		{Column{Scale: 1e-6}, NewFigure([]float64{25e6}), "25"},
		{Column{}, NewFigure([]float64{-1000}), "-1,000"},
		{Column{}, Figure{}, "–"},
		{Column{Labels: []string{"none", "all"}}, NewFigure([]float64{1, 1, 0}), "all"},
	} {
		if got := c.column.show(c.figure); got != c.want {
			t.Errorf("show(%+v) = %q, want %q", c.figure, got, c.want)
		}
	}
}

func TestThePageHoldsTablesGoalsAndAPlot(t *testing.T) {
	s := sample(map[string][]float64{"otpq": {20, 30, math.NaN()}, "asynq": {10, 10, 10}})
	s.Goals = []Goal{{Text: "otpq / asynq", Key: "rate", Case: "otpq", Against: "asynq", Bound: 2}}
	s.Build = "otpq v1"
	r := Results{Suites: map[string]*Suite{"drain": s}, Machine: Machine{CPU: "a CPU", Cores: 2, Versions: []string{"Go 1"}}}
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept", "results.json")
	if err := r.Save(kept); err != nil {
		t.Fatal(err)
	}
	r, err := Load(kept)
	if err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(dir, "benchmarks.md")
	if err := r.Write(page, []string{"drain", "never run"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"(benchmarks.svg)", "with otpq v1.", "## Drain & more", "N = 1,500", "a CPU, 2 cores", "Go 1",
		"| case | messages/s | runs |", "| otpq | 25 (20–30) | 2 |", "| asynq | 10 | 3 |",
		"| Drain & more | otpq / asynq | 2.50 (2.00–3.00) | at least 2 | met |",
		"Failed and left out: drain, otpq, round 2: 1 lost.",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
	plot, err := os.ReadFile(filepath.Join(dir, "benchmarks.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Drain &amp; more", ">otpq<", ">asynq<", ">25.0<", ownColour, peerColour} {
		if !strings.Contains(string(plot), want) {
			t.Errorf("the plot lacks %q:\n%s", want, plot)
		}
	}
	d := xml.NewDecoder(strings.NewReader(string(plot)))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot is no XML: %v", err)
		}
	}
}

func TestNothingKeptYetIsNoError(t *testing.T) {
	r, err := Load(filepath.Join(t.TempDir(), "none.json"))
	if err != nil || r.Suites == nil {
		t.Errorf("Load() = %+v, %v", r, err)
	}
}
