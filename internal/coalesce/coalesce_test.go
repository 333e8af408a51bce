package coalesce

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type job struct{ in, out int }

func TestWhatComesInMeanwhileGoesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sizes []int
		g := New(1, 8, func(jobs []*job) {
			mu.Lock()
			sizes = append(sizes, len(jobs))
			mu.Unlock()
			<-time.After(time.Second)
			for _, j := range jobs {
				j.out = 2 * j.in
			}
		})
		var wg sync.WaitGroup
		do := func(n int) {
			wg.Go(func() {
				j := &job{in: n}
				if err := g.Do(t.Context(), j); err != nil || j.out != 2*n {
					t.Errorf("Do(%d) = %d, %v; want %d", n, j.out, err, 2*n)
				}
			})
		}
		do(0)
		synctest.Wait()
		for n := range 20 {
			do(n)
		}
		wg.Wait()
		mu.Lock()
		defer mu.Unlock()
		total := 0
		for _, n := range sizes {
			if n > 8 {
				t.Errorf("a batch has %d items, want 8 at most", n)
			}
			total += n
		}
		if sizes[0] != 1 || total != 21 || len(sizes) != 4 {
			t.Errorf("batches of %v, want 1, 8, 8, 4", sizes)
		}
	})
}

// TestFirstComeFirstServed has more wait than one call takes: nobody is passed by.
func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran []int
		g := New(1, 3, func(items []int) {
			<-time.After(time.Second)
			ran = append(ran, items...)
		})
		var wg sync.WaitGroup
		var want []int
		for n := range 10 {
			want = append(want, n)
			wg.Go(func() { _ = g.Do(t.Context(), n) })
			synctest.Wait()
		}
		wg.Wait()
		_ = g.Do(t.Context(), 10) // when it has had nothing to do for a while
		if want = append(want, 10); !slices.Equal(ran, want) {
			t.Errorf("ran %v, want them as they came", ran)
		}
	})
}

func TestNoMoreCallsAtOnceThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		g := New(2, 1, func([]int) {
			most.Store(max(most.Load(), now.Add(1)))
			<-time.After(time.Second)
			now.Add(-1)
		})
		var wg sync.WaitGroup
		for n := range 10 {
			wg.Go(func() { _ = g.Do(t.Context(), n) })
		}
		wg.Wait()
		if most.Load() != 2 {
			t.Errorf("%d calls at once, want 2", most.Load())
		}
	})
}

func TestACallerLeavesWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		ran := make(chan int, 2)
		g := New(1, 8, func(items []int) {
			<-release
			for _, n := range items {
				ran <- n
			}
		})
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := g.Do(short, 1); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Do() = %v after %s, want the deadline after 1s", err, time.Since(start))
		}
		if err := g.Do(short, 2); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do() after the deadline = %v", err)
		}
		close(release)
		synctest.Wait()
		if n := <-ran; n != 1 {
			t.Errorf("item %d ran, want 1", n)
		}
		select {
		case n := <-ran:
			t.Errorf("item %d ran too, though its caller's time was over before", n)
		default:
		}
	})
}
