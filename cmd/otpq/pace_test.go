package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestNoSecondHasMoreThanTheRate(t *testing.T) {
	for _, c := range []struct {
		rate float64
		most int // in a second
	}{{0.5, 1}, {1, 1}, {2.5, 3}, {50, 50}, {100, 100}, {999, 999}, {12345, 12345}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPace(c.rate)
			var begun []time.Time
			first := time.Now()
			for i := 0; time.Since(first) < 4*time.Second; i++ {
				if err := p.wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				begun = append(begun, time.Now())
				if i == int(c.rate) {
					<-time.After(300 * time.Millisecond) // what comes late is not made up for
				}
			}
			for from, to := 0, 0; to < len(begun); to++ {
				for begun[to].Sub(begun[from]) >= time.Second {
					from++
				}
				if n := to - from + 1; n > c.most {
					t.Fatalf("at a rate of %v a second had %d", c.rate, n)
				}
			}
			if n, want := float64(len(begun)), 3.5*c.rate; n < want {
				t.Errorf("at a rate of %v, 4 s had %v, want at least %v", c.rate, n, want)
			}
		})
	}
}

func TestAPaceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(0.001)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.wait(ctx); err != nil {
			t.Errorf("the first: wait() = %v, want nil at once", err)
		}
		if err := p.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the second: wait() = %v, want the end of its context", err)
		}
	})
}
