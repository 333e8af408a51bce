package report

// Write is to come.
func (r Results) Write(string, []string) error { return nil }
