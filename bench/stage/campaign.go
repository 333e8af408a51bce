package stage

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Campaign has the product's worker, which must have been started, feed a campaign of
// so many requests of a provider. It returns once the campaign is started.
func (s *Scene) Campaign(ctx context.Context, provider string, n int, request func(i int) any) error {
	file := filepath.Join(s.dir, "campaign.jsonl")
	if err := writeRows(file, n, request); err != nil {
		return err
	}
	defer os.Remove(file)
	cmd := exec.CommandContext(ctx, s.Programs.Otpq, "campaign", "create", "bench", file, "--provider", provider,
		"--start", "--detach", "--config", s.otpqConfig)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("start a campaign: %w\n%s", err, out)
	}
	return nil
}

func writeRows(file string, n int, request func(i int) any) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	rows := json.NewEncoder(w)
	for i := range n {
		if err := rows.Encode(request(i)); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}
