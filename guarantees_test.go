package otpq_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// namedTest is how docs/guarantees.md names a test: `folder.TestName`.
var namedTest = regexp.MustCompile("`([a-z0-9/]+)\\.(Test[A-Za-z0-9]+)`")

// TestEveryTestThatTheGuaranteesNameExists keeps the document from promising by
// tests that were renamed or removed.
func TestEveryTestThatTheGuaranteesNameExists(t *testing.T) {
	text, err := os.ReadFile("docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	promised, _, _ := strings.Cut(string(text), "## Not promised")
	for _, line := range strings.Split(promised, "\n") {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| promise ") && !namedTest.MatchString(line) {
			t.Errorf("a promise without a test: %s", line)
		}
	}
	found := namedTest.FindAllStringSubmatch(string(text), -1)
	if len(found) < 20 {
		t.Fatalf("%d tests are named: the form has changed", len(found))
	}
	for _, m := range found {
		if !hasTest(t, m[1], m[2]) {
			t.Errorf("docs/guarantees.md names %s in %s, which is not there", m[2], m[1])
		}
	}
}

func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(code), "func "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}
