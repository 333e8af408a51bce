package enqueue

import (
	"fmt"
	"maps"
	"slices"

	"github.com/otpq/otpq/tasks"
)

// queueOf is the queue that a message is put in.
func (c *Client) queueOf(m tasks.Message) string {
	return tasks.QueueOf(m.Provider, m.Lane, m.ID, c.queues[m.Provider])
}

// checkQueues names the first provider, by name, that cannot have so many queues.
func checkQueues(queues map[string]int) error {
	for _, provider := range slices.Sorted(maps.Keys(queues)) {
		if n := queues[provider]; n < 1 || n > tasks.MaxQueues {
			return fmt.Errorf("queues of %s: must be at least 1 and at most %d, not %d", provider, tasks.MaxQueues, n)
		}
	}
	return nil
}
