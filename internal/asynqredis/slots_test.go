package asynqredis

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shared makes slots for so many queues.
func shared(size, queues int) *Slots {
	s := NewSlots(size)
	for range queues {
		s.join()
	}
	return s
}

// TestAQueueTakesAPortionOfTheSlots asks for slots until none is left.
func TestAQueueTakesAPortionOfTheSlots(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		size, queues int
		want         []int
	}{
		"an only queue takes all":                    {10, 1, []int{10, 1}}, // asynq asks: it has one more
		"as many as one round trip takes":            {200, 1, []int{64, 64, 64, 8, 1}},
		"a share each":                               {10, 3, []int{4, 4, 2, 0}},
		"one each when there are more queues":        {2, 5, []int{1, 1, 0}},
		"a share, but no more than one round trip's": {1000, 2, []int{64, 64, 64}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := shared(c.size, c.queues)
				var got []int
				for range c.want {
					got = append(got, s.take(nil))
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("take (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestQueuesWaitInLineForASlot gives slots back one at a time.
func TestQueuesWaitInLineForASlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := shared(2, 2)
		s.take(nil)
		s.take(nil)
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				if n := s.take(nil); n != 1 {
					t.Errorf("queue %d took %d", i, n)
				}
				order <- i
			}()
			synctest.Wait()
		}
		for want := range 3 {
			s.give(1)
			if got := <-order; got != want {
				t.Errorf("the slot went to queue %d, want %d", got, want)
			}
		}
		if s.used != 2 || len(s.line) != 0 {
			t.Errorf("%d slots are taken, %d wait; want 2 and 0", s.used, len(s.line))
		}
	})
}

// TestWaitingForASlotEnds has none come.
func TestWaitingForASlotEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := shared(1, 2)
		s.take(nil)
		began := time.Now()
		if n := s.take(nil); n != 0 || time.Since(began) != holdTime {
			t.Errorf("took %d after %s, want none after %s", n, time.Since(began), holdTime)
		}
		stop := make(chan struct{})
		close(stop)
		began = time.Now()
		if n := s.take(stop); n != 0 || time.Since(began) != 0 {
			t.Errorf("took %d after %s when it was to stop", n, time.Since(began))
		}
		s.give(1) // to nobody: those that waited are gone
		if n := s.take(nil); n != 1 {
			t.Errorf("took %d of a free slot", n)
		}
	})
}

// TestSlotsAreNeverTakenTwice has many queues take and give.
func TestSlotsAreNeverTakenTwice(t *testing.T) {
	t.Parallel()
	const size, queues = 7, 5
	s := shared(size, queues)
	var now, turns atomic.Int64
	var wg sync.WaitGroup
	for range queues {
		wg.Go(func() {
			for range 20_000 {
				n := s.take(nil)
				if used := now.Add(int64(n)); used > size {
					t.Errorf("%d slots are taken, of %d", used, size)
				}
				if n > 0 {
					turns.Add(1)
				}
				now.Add(int64(-n))
				s.give(n)
			}
		})
	}
	wg.Wait()
	if s.used != 0 || len(s.line) != 0 || turns.Load() != 20_000*queues {
		t.Errorf("%d slots are left taken, %d wait, %d of %d turns; want none, and all turns", s.used, len(s.line), turns.Load(), 20_000*queues)
	}
}

// TestOneQueueIsCalledAtATime gives slots back while the queue that was called has
// not come yet: nobody else gets them meanwhile.
func TestOneQueueIsCalledAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := shared(4, 2)
		s.take(nil)
		s.take(nil)
		first, second := make(chan struct{}, 1), make(chan struct{}, 1)
		s.line = []chan struct{}{first, second}
		for range 3 {
			s.give(1)
			if len(first) != 1 || len(second) != 0 {
				t.Fatalf("called: the first queue %d times and the second %d, want the first alone", len(first), len(second))
			}
		}
		if n := s.take(nil); n != 0 {
			t.Errorf("a queue that came later took %d slots before the one that was called", n)
		}
	})
}
