package tasks

import (
	"hash/fnv"
	"strconv"
	"strings"
)

// MaxQueues is the most queues that a provider's lane may have. Each costs a worker
// a few connections and a few commands a second when idle.
const MaxQueues = 64

const queuePrefix = "otpq:"

// QueueName is the first asynq queue of a provider's lane, and mostly the only one.
func QueueName(provider string, lane Lane) string {
	return queuePrefix + provider + ":" + string(lane)
}

// Queues lists the n queues of a provider's lane, the first one first. On a cluster
// they are in different slots, and so may be on different nodes. An n below one
// means one.
func Queues(provider string, lane Lane, n int) []string {
	names := make([]string, max(n, 1))
	for i := range names {
		names[i] = queueAt(provider, lane, i)
	}
	return names
}

// QueueOf is the queue, among n, that a message is put in. It follows from the
// message's id alone, so that whoever queues the message again names the same one.
func QueueOf(provider string, lane Lane, id string, n int) string {
	if n <= 1 {
		return QueueName(provider, lane)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails
	return queueAt(provider, lane, int(h.Sum64()%uint64(n)))
}

// queueAt is the queue at an index. The first has no number: it is the one that
// there always was.
func queueAt(provider string, lane Lane, i int) string {
	name := QueueName(provider, lane)
	if i > 0 {
		name += ":" + strconv.Itoa(i+1)
	}
	return name
}

// ParseQueue tells whose queue a name is, and which of the lane's it is, from 1. It
// is ok only for a name that [Queues] makes, with any n up to [MaxQueues].
func ParseQueue(name string) (provider string, lane Lane, number int, ok bool) {
	rest, ok := strings.CutPrefix(name, queuePrefix)
	parts := strings.Split(rest, ":")
	if !ok || len(parts) < 2 || len(parts) > 3 || parts[0] == "" || !Lane(parts[1]).Valid() {
		return "", "", 0, false
	}
	number = 1
	if len(parts) == 3 {
		var err error
		number, err = strconv.Atoi(parts[2])
		if err != nil || number < 2 || number > MaxQueues || strconv.Itoa(number) != parts[2] {
			return "", "", 0, false
		}
	}
	return parts[0], Lane(parts[1]), number, true
}
