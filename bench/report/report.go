// Package report turns the runs of a benchmark into tables, ratios, a page and a
// plot. It measures nothing.
package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Run is what one case of a suite came to in one round.
type Run struct {
	Case  string `json:"case"`
	Round int    `json:"round"`
	// Values by the keys of the suite's columns; a case may lack some.
	Values map[string]float64 `json:"values"`
	// Noisy runs met somebody else who used the machine; Foreign is how many
	// cores of it.
	Foreign float64 `json:"foreign"`
	Noisy   bool    `json:"noisy,omitempty"`
	// Problems are what was lost or doubled: the run counts for nothing.
	Problems []string `json:"problems,omitempty"`
}

// Column is one figure of a suite.
type Column struct {
	Key, Title string
	Digits     int
	// Scale multiplies what is shown; zero is one.
	Scale float64
	// Labels are what to show for the values 0, 1, …; of the median.
	Labels []string
}

// Goal is a ratio, or a figure, that a suite is to reach.
type Goal struct {
	Text string
	Key  string
	Case string
	// Against is the case to divide by; empty leaves the figure as it is.
	Against string
	// AgainstKey is its key, when it is another one.
	AgainstKey string
	// Bound is the least it may be, or the most.
	Bound float64
	Most  bool
}

// Suite is a set of cases, what was measured of them, and how to show it.
type Suite struct {
	Name, Title string
	// About says what was done, in a paragraph.
	About   string
	Columns []Column
	Goals   []Goal
	// Plot is the key of the column to draw; empty is none. Log draws it on a
	// logarithmic scale, Better says which way is good: "more" or "less".
	Plot      string
	Log       bool
	Better    string
	PlotTitle string
	// InOrder draws the cases in their order, not the best first.
	InOrder bool
	Cases   []string

	Runs     []Run     `json:"runs"`
	Messages int       `json:"messages"`
	At       time.Time `json:"at"`
	// Build is what of the product was measured.
	Build string `json:"build"`
}

// Figure is a median with its spread.
type Figure struct {
	Min, Median, Max float64
	N                int
}

// NewFigure sums up values; N is zero when there are none.
func NewFigure(values []float64) Figure {
	if len(values) == 0 {
		return Figure{}
	}
	v := slices.Sorted(slices.Values(values))
	return Figure{v[0], Quantile(v, 0.5), v[len(v)-1], len(v)}
}

// Quantile reads a quantile off values in ascending order: the lowest of them
// that at least the share q does not exceed, so that it is always one that was
// measured; but the median of an even number is the mean of the middle two.
func Quantile(ascending []float64, q float64) float64 {
	n := len(ascending)
	if n == 0 {
		return math.NaN()
	}
	if q == 0.5 && n%2 == 0 {
		return (ascending[n/2-1] + ascending[n/2]) / 2
	}
	i := int(math.Ceil(q*float64(n))) - 1
	return ascending[min(max(i, 0), n-1)]
}

// Good returns the runs of a case that count: nothing lost or doubled, and where
// two or more had the machine to themselves, only those.
func (s *Suite) Good(name string) []Run {
	var all, quiet []Run
	for _, r := range s.Runs {
		if r.Case != name || len(r.Problems) > 0 {
			continue
		}
		all = append(all, r)
		if !r.Noisy {
			quiet = append(quiet, r)
		}
	}
	if len(quiet) >= 2 {
		return quiet
	}
	return all
}

// Figure is what a case's runs came to by one key.
func (s *Suite) Figure(name, key string) Figure {
	var values []float64
	for _, r := range s.Good(name) {
		if v, ok := r.Values[key]; ok {
			values = append(values, v)
		}
	}
	return NewFigure(values)
}

// Ratio is a goal's ratio round by round: the two stood next to each other there.
// Where no round has both, it is that of the medians.
func (s *Suite) Ratio(g Goal) Figure {
	if g.Against == "" {
		return s.Figure(g.Case, g.Key)
	}
	key := cmp.Or(g.AgainstKey, g.Key)
	below := map[int]float64{}
	for _, r := range s.Good(g.Against) {
		if v, ok := r.Values[key]; ok {
			below[r.Round] = v
		}
	}
	var ratios []float64
	for _, r := range s.Good(g.Case) {
		v, ok := r.Values[g.Key]
		if b := below[r.Round]; ok && b > 0 {
			ratios = append(ratios, v/b)
		}
	}
	if len(ratios) == 0 {
		a, b := s.Figure(g.Case, g.Key), s.Figure(g.Against, key)
		if a.N > 0 && b.N > 0 && b.Median > 0 {
			ratios = []float64{a.Median / b.Median}
		}
	}
	return NewFigure(ratios)
}

// Met reports whether a goal's median ratio is where it should be.
func (g Goal) Met(f Figure) bool {
	if g.Most {
		return f.Median <= g.Bound
	}
	return f.Median >= g.Bound
}

// Says is the goal in words.
func (g Goal) Says() string {
	if g.Most {
		return fmt.Sprintf("at most %.4g", g.Bound)
	}
	return fmt.Sprintf("at least %.4g", g.Bound)
}

// Failures lists what was lost or doubled, and by whom.
func (s *Suite) Failures() []string {
	var out []string
	for _, r := range s.Runs {
		if len(r.Problems) > 0 {
			out = append(out, fmt.Sprintf("%s, %s, round %d: %s", s.Name, r.Case, r.Round, strings.Join(r.Problems, ", ")))
		}
	}
	return out
}

// Results are all suites that were run, as they are kept between calls.
type Results struct {
	Machine  Machine           `json:"machine"`
	Suites   map[string]*Suite `json:"suites"`
	InFlight int               `json:"in_flight"`
}

// Machine is where the figures come from.
type Machine struct {
	CPU      string   `json:"cpu"`
	Cores    int      `json:"cores"`
	Memory   string   `json:"memory"`
	System   string   `json:"system"`
	Versions []string `json:"versions"`
}

// Load reads kept results; none is no error.
func Load(file string) (Results, error) {
	r := Results{Suites: map[string]*Suite{}}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	err = json.Unmarshal(raw, &r)
	return r, err
}

// Save keeps results.
func (r Results) Save(file string) error {
	raw, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o600)
}
