package chaos

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestASeedDecidesTheWholePlan(t *testing.T) {
	names := []string{"worker1", "worker2", "worker3"}
	const length = 3 * time.Minute
	first := plan(7, length, names)
	compare := cmp.AllowUnexported(trouble{})
	if diff := cmp.Diff(first, plan(7, length, names), compare); diff != "" {
		t.Errorf("the same seed plans other troubles:\n%s", diff)
	}
	if cmp.Equal(first, plan(8, length, names), compare) {
		t.Error("another seed plans the same troubles")
	}
	over := map[string]time.Duration{} // when the last trouble of a track ends
	kinds := map[string]bool{}
	for _, e := range first {
		if e.at < over[e.track] || e.at+e.lasts > length {
			t.Errorf("%s: it begins before the last of its track is over, or outlasts the run", e)
		}
		over[e.track] = e.at + e.lasts
		kinds[trackKind(e.track)+" "+e.kind] = true
	}
	for _, tr := range tracks(names) {
		for kind := range tr.troubles {
			if !kinds[trackKind(tr.name)+" "+kind] {
				t.Errorf("in three minutes, %s is never %s", tr.name, kind)
			}
		}
	}
	if diff := cmp.Diff(wishFor(7, 5), wishFor(7, 5), cmp.AllowUnexported(wish{})); diff != "" {
		t.Errorf("the same seed wishes for another message:\n%s", diff)
	}
}
