package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// header is the first row of a suite's table.
func (s *Suite) header() []string {
	row := []string{"case"}
	for _, c := range s.shown() {
		row = append(row, c.Title)
	}
	return append(row, "runs")
}

// shown are the columns that any case has something for.
func (s *Suite) shown() []Column {
	return slices.DeleteFunc(slices.Clone(s.Columns), func(c Column) bool {
		return !slices.ContainsFunc(s.Cases, func(name string) bool { return s.Figure(name, c.Key).N > 0 })
	})
}

// rows are a suite's cases.
func (s *Suite) rows() [][]string {
	var out [][]string
	for _, name := range s.Cases {
		good := s.Good(name)
		if len(good) == 0 {
			continue
		}
		row := []string{name}
		for _, c := range s.shown() {
			row = append(row, c.show(s.Figure(name, c.Key)))
		}
		out = append(out, append(row, strconv.Itoa(len(good))))
	}
	return out
}

// show writes a figure as its median, with the spread behind it when there is one.
func (c Column) show(f Figure) string {
	if f.N == 0 {
		return "–"
	}
	if c.Labels != nil {
		return c.Labels[min(int(f.Median), len(c.Labels)-1)]
	}
	scale := c.Scale
	if scale == 0 {
		scale = 1
	}
	number := func(v float64) string { return group(strconv.FormatFloat(v*scale, 'f', c.Digits, 64)) }
	if low, high := number(f.Min), number(f.Max); low != high {
		return number(f.Median) + " (" + low + "–" + high + ")"
	}
	return number(f.Median)
}

// group puts a comma before each three digits of the whole part.
func group(number string) string {
	whole, rest, dot := strings.Cut(number, ".")
	sign := strings.HasPrefix(whole, "-")
	whole = strings.TrimPrefix(whole, "-")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if sign {
		whole = "-" + whole
	}
	if dot {
		return whole + "." + rest
	}
	return whole
}

// goalRows say how the product stands to each goal.
func (s *Suite) goalRows() [][]string {
	var out [][]string
	for _, g := range s.Goals {
		f := s.Ratio(g)
		if f.N == 0 {
			continue
		}
		verdict := "missed"
		if g.Met(f) {
			verdict = "met"
		}
		out = append(out, []string{g.Text, Column{Digits: 2}.show(f), g.Says(), verdict})
	}
	return out
}

var goalHeader = []string{"ratio", "measured", "goal", ""}

// Print writes a suite for a terminal.
func (s *Suite) Print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s messages, median (lowest–highest) of the runs\n\n", s.Title, group(strconv.Itoa(s.Messages)))
	printTable(w, append([][]string{s.header()}, s.rows()...))
	if goals := s.goalRows(); len(goals) > 0 {
		fmt.Fprintln(w)
		printTable(w, append([][]string{goalHeader}, goals...))
	}
	for _, f := range s.Failures() {
		fmt.Fprintln(w, "FAILED:", f)
	}
}

// printTable lines columns up: the first to the left, the others to the right.
func printTable(w io.Writer, rows [][]string) {
	width := map[int]int{}
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString("  " + cell + pad)
			} else {
				line.WriteString("  " + pad + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// markdownTable writes rows with the first as header.
func markdownTable(b *strings.Builder, rows [][]string) {
	for i, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|---" + strings.Repeat("|---:", len(row)-1) + "|\n")
		}
	}
	b.WriteString("\n")
}
