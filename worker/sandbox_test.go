package worker

import (
	"net/http/httptest"
	"testing"

	"github.com/otpq/otpq/providers/sandbox"
)

// serveSandbox listens for a sandbox until the test ends.
func serveSandbox(t *testing.T, server *sandbox.Server) string {
	t.Helper()
	listening := httptest.NewServer(server.Handler())
	t.Cleanup(func() { server.Close(); listening.Close() })
	return listening.URL
}
