package otpq_test

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// tableRow returns the cells of the first row of a table under a heading of a document
// that begins with a cell.
func tableRow(t *testing.T, text, heading, first string) []string {
	t.Helper()
	_, section, ok := strings.Cut(text, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("there is no heading %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) > 1 && strings.HasPrefix(cells[0], first) {
			return cells
		}
	}
	t.Fatalf("%q has no row %q", heading, first)
	return nil
}

var leadingNumber = regexp.MustCompile(`^[0-9.]+`)

func numberOf(t *testing.T, cell string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(leadingNumber.FindString(cell), 64)
	if err != nil {
		t.Fatalf("%q does not begin with a number", cell)
	}
	return n
}

func document(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestWhatScalingAssumesIsWhatWasMeasured compares the CPU that docs/scaling.md reckons
// with to docs/benchmarks.md, which `make bench` writes anew, and does its sums again.
func TestWhatScalingAssumesIsWhatWasMeasured(t *testing.T) {
	const paper, cpu = "10×, 100×, 1,000× on paper", 2 // the worker's column, before Redis's
	scaling, benchmarks := document(t, "docs/scaling.md"), document(t, "docs/benchmarks.md")
	drain := tableRow(t, benchmarks, "Drain, provider at 0 ms", "otpq")
	send := tableRow(t, benchmarks, "Enqueue", "otpq Send")
	for _, c := range []struct {
		assumption, sum string
		measured        float64
	}{
		{"worker CPU a message", "worker CPU (", numberOf(t, drain[cpu])},
		{"Redis CPU a message", "Redis CPU (", numberOf(t, drain[cpu+1]) + numberOf(t, send[cpu+1])},
	} {
		assumed := numberOf(t, tableRow(t, scaling, paper, c.assumption)[1])
		if far := math.Abs(assumed/c.measured - 1); far > 0.25 {
			t.Errorf("docs/scaling.md assumes %.0f µs of %s, docs/benchmarks.md has %.1f", assumed, c.assumption, c.measured)
		}
		row := tableRow(t, scaling, paper, c.sum)
		if _, label, _ := strings.Cut(row[0], "("); numberOf(t, label) != assumed {
			t.Errorf("%s is not reckoned with the %.0f µs that are assumed", row[0], assumed)
		}
		for i, rate := range []float64{100, 1_000, 10_000, 100_000} {
			want := assumed * rate / 1e6
			if got := numberOf(t, row[1+i]); math.Abs(got/want-1) > 0.1 {
				t.Errorf("%s at %.0f/s = %v, want %.3g", row[0], rate, got, want)
			}
		}
	}
}
