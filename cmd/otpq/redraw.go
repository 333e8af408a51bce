package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
)

// redrawn is what a terminal shows and is drawn over.
type redrawn struct{ lines int }

// draw draws the lines over those of the last time, as many as the terminal has
// room for.
func (r *redrawn) draw(w io.Writer, lines []string) error {
	var b strings.Builder
	if r.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", r.lines) // up to its first line, and clear below
	}
	width, height := terminalSize(w)
	if height > 2 && len(lines) > height-1 { // what has scrolled away cannot be drawn over
		rest := len(lines) - (height - 2)
		lines = append(lines[:height-2:height-2], fmt.Sprintf("… and %d more than fit here", rest))
	}
	for _, line := range lines {
		if width > 0 { // a line that wraps would be two, and the next drawing start too low
			line = text.Snip(line, width-1, "…")
		}
		b.WriteString(line + "\n")
	}
	r.lines = len(lines)
	_, err := io.WriteString(w, b.String())
	return err
}

// drawing is what is about to be drawn, with the colours of where it goes.
type drawing struct {
	bytes.Buffer
	colours bool
}
