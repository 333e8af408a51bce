package report

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The plot's measures, in pixels. Text is drawn on white, so that it reads on a
// dark page too.
const (
	plotWidth  = 860
	labelWidth = 250
	valueWidth = 90
	barHeight  = 18
	barGap     = 6
	titleSpace = 44
	panelGap   = 18
	barSpace   = plotWidth - labelWidth - valueWidth - 20
)

const (
	ownColour  = "#1f6feb"
	peerColour = "#9aa4b2"
	ink        = "#1c2128"
)

// drawAll draws a panel for each suite that has something to draw.
func drawAll(suites []*Suite) string {
	var body strings.Builder
	y := panelGap
	for _, s := range suites {
		if s.Plot == "" {
			continue
		}
		panel, height := s.draw(y)
		if height == 0 {
			continue
		}
		body.WriteString(panel)
		y += height + panelGap
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="Helvetica, Arial, sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="#ffffff"/>
%s</svg>
`, plotWidth, y, plotWidth, y, body.String())
}

// bar is one case of a panel.
type bar struct {
	name string
	Figure
}

// draw draws a suite's panel, the best case first, with a line from the lowest to
// the highest run.
func (s *Suite) draw(y int) (svg string, height int) {
	var bars []bar
	for _, name := range s.Cases {
		if f := s.Figure(name, s.Plot); f.N > 0 && f.Min > 0 {
			bars = append(bars, bar{name, f})
		}
	}
	if len(bars) == 0 {
		return "", 0
	}
	slices.SortStableFunc(bars, func(a, b bar) int {
		switch {
		case s.InOrder:
			return 0
		case s.Better == "less":
			return cmp.Compare(a.Median, b.Median)
		}
		return cmp.Compare(b.Median, a.Median)
	})
	low, high := math.Inf(1), 0.0
	for _, b := range bars {
		low, high = min(low, b.Min), max(high, b.Max)
	}
	at := func(v float64) float64 {
		if !s.Log {
			return v / high * barSpace
		}
		floor := math.Pow(10, math.Floor(math.Log10(low)-0.001))
		return math.Log10(v/floor) / math.Log10(high/floor) * barSpace
	}
	var b strings.Builder
	note := "longer is better"
	if s.Better == "less" {
		note = "shorter is better"
	}
	if s.Log {
		note += ", logarithmic"
	}
	fmt.Fprintf(&b, `<text x="10" y="%d" font-size="15" font-weight="bold" fill="%s">%s</text>`+"\n", y+16, ink, escape(cmp.Or(s.PlotTitle, s.Title)))
	fmt.Fprintf(&b, `<text x="10" y="%d" font-size="11" fill="#57606a">%s</text>`+"\n", y+32, note)
	top := y + titleSpace
	for _, bar := range bars {
		middle := top + barHeight/2
		colour := peerColour
		if own(bar.name) {
			colour = ownColour
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="%s">%s</text>`+"\n", labelWidth-8, middle+4, ink, escape(bar.name))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", labelWidth, top, max(1, at(bar.Median)), barHeight, colour)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`+"\n", labelWidth+at(bar.Min), middle, labelWidth+at(bar.Max), middle, ink)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="%s">%s</text>`+"\n", labelWidth+at(bar.Max)+6, middle+4, ink, short(bar.Median))
		top += barHeight + barGap
	}
	return b.String(), top - y
}

// own reports whether a case is the product's: in some suites all are.
func own(name string) bool {
	return strings.HasPrefix(name, "otpq") || strings.Contains(name, "one Redis") || strings.Contains(name, "masters")
}

// short writes a figure in few digits.
func short(v float64) string {
	switch {
	case v >= 100:
		return group(fmt.Sprintf("%.0f", v))
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes all
	return b.String()
}
