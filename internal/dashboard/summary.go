package dashboard

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/otpq/otpq/tasks"
)

// summarize is what Asynqmon shows in place of a payload: what travels unsealed,
// and of the sealed part its size. What is no message of ours may name anybody,
// so nothing of it is shown.
func summarize(taskType string, payload []byte) string {
	foreign := fmt.Sprintf("not an otpq message, %d bytes", len(payload))
	if taskType != tasks.TaskType {
		return foreign
	}
	m, keyID, err := tasks.Peek(payload)
	switch {
	case errors.Is(err, tasks.ErrVersion):
		return fmt.Sprintf("a message of a newer otpq, %d bytes", len(payload))
	case err != nil:
		return foreign
	}
	// A line each: Asynqmon's lists show little of a long one.
	lines := []string{m.Provider + ", " + string(m.Lane), "not after " + m.NotAfter.UTC().Format(time.RFC3339)}
	if m.Campaign != "" {
		lines = append(lines, "campaign "+m.Campaign)
	}
	if m.ReplayOf != "" {
		lines = append(lines, "replay of "+m.ReplayOf)
	}
	return strings.Join(append(lines, fmt.Sprintf("sealed with key %s, %d bytes", keyID, len(payload))), "\n")
}

// summarizeResult is what Asynqmon shows in place of a result; otpq writes none.
func summarizeResult(_ string, result []byte) string {
	if len(result) == 0 {
		return ""
	}
	return fmt.Sprintf("not otpq's, %d bytes", len(result))
}
