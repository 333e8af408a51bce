package status

import (
	"bytes"
	"encoding/xml"
	"errors"
	flags "flag" // the package has a flag of its own
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flags.Bool("update", false, "write docs/states.svg and the states of docs/architecture.md")

const (
	drawingFile      = "../docs/states.svg"
	architectureFile = "../docs/architecture.md"
	// What is between these lines of the page is written by the test.
	statesBegin = "<!-- states: written by `go test ./status -run TestTheStatesAreDrawnAsTheyAre -update` -->\n"
	statesEnd   = "<!-- end of states -->"
)

// TestTheStatesAreDrawnAsTheyAre keeps the drawing, and its text for those who cannot
// see it, from showing another state machine than the one that runs.
func TestTheStatesAreDrawnAsTheyAre(t *testing.T) {
	drawing, err := drawStates()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(architectureFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), statesBegin)
	_, after, ok2 := strings.Cut(rest, statesEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines %q and %q", architectureFile, statesBegin, statesEnd)
	}
	want := before + statesBegin + tellStates() + statesEnd + after
	if *update {
		for file, text := range map[string]string{drawingFile: drawing, architectureFile: want} {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	old, err := os.ReadFile(drawingFile)
	if err != nil {
		t.Fatal(err)
	}
	const advice = "is not what the code says: run `go test ./status -run TestTheStatesAreDrawnAsTheyAre -update`"
	if string(old) != drawing {
		t.Errorf("%s %s", drawingFile, advice)
	}
	if string(page) != want {
		t.Errorf("the table of states in %s %s", architectureFile, advice)
	}
}

// TestTheDrawingIsWellFormed reads it as a browser does.
func TestTheDrawingIsWellFormed(t *testing.T) {
	text, err := os.ReadFile(drawingFile)
	if err != nil {
		t.Fatal(err)
	}
	boxes := map[string]bool{}
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, isText := token.(xml.CharData); isText {
			boxes[string(text)] = true
		}
	}
	for _, s := range States() {
		if !boxes[string(s)] {
			t.Errorf("the drawing has no box called %s", s)
		}
	}
}

// tellStates is the drawing in words.
func tellStates() string {
	var b strings.Builder
	b.WriteString("\n| state | is | may become |\n|---|---|---|\n")
	for _, s := range States() {
		is := "on its way"
		switch {
		case s.Dead():
			is = "an end, and a dead letter"
		case s.Terminal():
			is = "an end"
		}
		var next []string
		for _, to := range States() {
			if s.CanBecome(to) {
				next = append(next, "`"+string(to)+"`")
			}
		}
		if next == nil {
			next = []string{"nothing else"}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s, is, strings.Join(next, ", "))
	}
	b.WriteString("\n")
	return b.String()
}

// box is where something is drawn.
type box struct{ x, y, w, h int }

func (b box) left(share float64) (x, y int)  { return b.x, b.y + int(float64(b.h)*share) }
func (b box) right(share float64) (x, y int) { return b.x + b.w, b.y + int(float64(b.h)*share) }
func (b box) middle() (x, y int)             { return b.x + b.w/2, b.y + b.h/2 }

// around is the box around both.
func (b box) around(other box, space int) box {
	x, y := min(b.x, other.x)-space, min(b.y, other.y)-space
	return box{x, y, max(b.x+b.w, other.x+other.w) + space - x, max(b.y+b.h, other.y+other.h) + space - y}
}

// places are where the states are drawn. What waits has the same ways out, and is
// drawn in one frame. Ends are ordered so that few arrows cross.
var places = map[State]box{
	Queued: {50, 230, 120, 40}, Deferred: {50, 320, 120, 40},
	Sending: {300, 70, 120, 40},
	Unknown: {600, 20, 120, 40}, Exhausted: {600, 90, 120, 40}, Accepted: {600, 160, 120, 40},
	Rejected: {600, 230, 120, 40}, Expired: {600, 300, 120, 40}, Canceled: {600, 370, 120, 40},
}

// drawStates draws the state machine. It fails when there is a state without a
// place, or one that waits and has other ways out than the others.
func drawStates() (string, error) {
	for _, s := range States() {
		if _, ok := places[s]; !ok {
			return "", fmt.Errorf("state %s has no place in the drawing: give it one", s)
		}
	}
	if !slices.Equal(ways(Queued), ways(Deferred)) {
		return "", errors.New("queued and deferred lead elsewhere by now: draw them apart")
	}
	frame := places[Queued].around(places[Deferred], 25)
	var b strings.Builder
	b.WriteString(drawingHead)
	for _, s := range States() {
		for _, to := range ways(s) {
			switch {
			case s == Queued: // told by the frame's arrows
			case s == Deferred:
				drawWay(&b, frame, to, class(to))
			default:
				drawWay(&b, places[s], to, "sends")
			}
		}
	}
	fmt.Fprintf(&b, `<rect class="frame" x="%d" y="%d" width="%d" height="%d" rx="12"/>`+"\n", frame.x, frame.y, frame.w, frame.h)
	fmt.Fprintf(&b, `<text class="note" x="%d" y="%d">waits</text>`+"\n", frame.x+12, frame.y+16)
	// Inside the frame, over its ground.
	if Queued.CanBecome(Deferred) {
		x, y := places[Queued].middle()
		fmt.Fprintf(&b, `<path class="waits" d="M%d %dV%d"/>`+"\n", x, y+places[Queued].h/2, places[Deferred].y-2)
	}
	if Deferred.CanBecome(Deferred) {
		x, y := places[Deferred].left(0.3)
		fmt.Fprintf(&b, `<path class="waits" d="M%d %dC%d %d %d %d %d %d"/>`+"\n", x, y, x-26, y-6, x-26, y+22, x-2, y+16)
	}
	if Sending.CanBecome(Deferred) {
		x1, y1 := places[Sending].middle()
		x2, y2 := places[Deferred].right(0.5)
		fmt.Fprintf(&b, `<path class="sends" d="M%d %dC%d %d %d %d %d %d"/>`+"\n", x1-30, y1+places[Sending].h/2, x1-30, y1+150, x2+90, y2, x2+2, y2)
	}
	for _, s := range States() {
		class := "way"
		switch {
		case s.Dead():
			class = "dead"
		case s.Terminal():
			class = "end"
		}
		p := places[s]
		x, y := p.middle()
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="8"/><text x="%d" y="%d">%s</text>`+"\n", class, p.x, p.y, p.w, p.h, x, y+5, s)
	}
	b.WriteString(drawingFoot)
	return b.String(), nil
}

// ways are the states that a state leads to.
func ways(s State) (to []State) {
	for _, next := range States() {
		if s.CanBecome(next) {
			to = append(to, next)
		}
	}
	return to
}

// class is how the way of a message that waits is drawn: only a late reply has it accepted.
func class(to State) string {
	if to == Accepted {
		return "late"
	}
	return "waits"
}

// drawWay draws one arrow that is not inside the frame.
func drawWay(b *strings.Builder, from box, to State, class string) {
	target := places[to]
	x1, y1 := from.right(share(target.y, 20, 370))
	x2, y2 := target.left(map[string]float64{"sends": 0.35, "waits": 0.65, "late": 0.65}[class])
	switch {
	case to == Deferred: // inside the frame
		return
	case to == Sending:
		x1, y1 = from.x+from.w/2, from.y
		x2, y2 = target.left(0.5)
		fmt.Fprintf(b, `<path class="%s" d="M%d %dC%d %d %d %d %d %d"/>`+"\n", class, x1, y1, x1, y2, x1+60, y2, x2-2, y2)
		return
	case from.x == target.x: // from one end to another, beside those between
		x1, y1 = from.right(0.5)
		x2, y2 = target.right(0.5)
		fmt.Fprintf(b, `<path class="late" d="M%d %dC%d %d %d %d %d %d"/>`+"\n", x1, y1, x1+50, y1, x2+50, y2, x2+2, y2)
		return
	}
	fmt.Fprintf(b, `<path class="%s" d="M%d %dC%d %d %d %d %d %d"/>`+"\n", class, x1, y1, x1+110, y1, x2-110, y2, x2-2, y2)
}

// share is where y lies between a and b, inside a box's side.
func share(y, a, b int) float64 { return 0.15 + 0.7*float64(y-a)/float64(b-a) }

const drawingHead = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 440" role="img" aria-labelledby="t d" font-family="system-ui, sans-serif" font-size="15">
<title id="t">The states of a message</title>
<desc id="d">The same as the table of states in architecture.md. Solid arrows end an attempt, dashed ones need none, dotted ones are late replies.</desc>
<style>
svg { --ink: #1f2328; --faint: #59636e; --ground: #f6f8fa; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --faint: #9198a1; --ground: #212830; --good: #3fb950; --bad: #f85149; } }
text { fill: var(--ink); text-anchor: middle; }
.note { fill: var(--faint); font-size: 13px; text-anchor: start; }
rect { fill: var(--ground); stroke: var(--ink); stroke-width: 1.5; }
.frame { fill: none; stroke: var(--faint); stroke-dasharray: 6 4; }
.end { stroke: var(--good); stroke-width: 2.5; }
.dead { stroke: var(--bad); stroke-width: 2.5; }
path { fill: none; stroke: var(--ink); stroke-width: 1.4; marker-end: url(#a); }
.waits { stroke-dasharray: 6 4; stroke: var(--faint); }
.late { stroke-dasharray: 2 4; stroke: var(--faint); }
#a path { fill: var(--ink); stroke: none; marker-end: none; }
</style>
<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8Z"/></marker></defs>
`

const drawingFoot = `<text class="note" x="20" y="428">green: an end · red: an end, and a dead letter · solid: after an attempt · dashed: without one · dotted: a late reply</text>
</svg>
`
