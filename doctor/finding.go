package doctor

import "fmt"

// Severity says what a finding asks for.
type Severity string

const (
	// Problem: something does not work, or content is in danger.
	Problem Severity = "problem"
	// Warning: it works, and will hurt.
	Warning Severity = "warning"
	// Note: worth knowing, nothing to be done.
	Note Severity = "note"
)

// Finding is one thing that a check has found.
type Finding struct {
	Severity Severity `json:"severity"`
	Check    string   `json:"check"`
	Subject  string   `json:"subject,omitempty"` // the tree, the member, the mount
	What     string   `json:"what"`
	Remedy   string   `json:"remedy,omitempty"`
}

// Check is one question and its answers.
type Check struct {
	Name     string    `json:"name"`
	Findings []Finding `json:"findings"` // none: all is well
}

// Examine asks every question.
func Examine(f Facts) []Check {
	checks := []struct {
		name string
		ask  func(*sheet, Facts)
	}{
		{"data directory", checkData},
		{"limits", checkLimits},
		{"identity", checkIdentity},
		{"members", checkMembers},
		{"quorum", checkQuorum},
		{"trees", checkTrees},
		{"mounts", checkMounts},
		{"file operations", checkTrials},
		{"shared directories", checkShared},
		{"share", checkShare},
	}
	out := make([]Check, 0, len(checks))
	for _, c := range checks {
		s := &sheet{check: c.name}
		c.ask(s, f)
		out = append(out, Check{Name: c.name, Findings: append([]Finding{}, s.findings...)})
	}
	return out
}

// Count counts the findings of one severity.
func Count(checks []Check, of Severity) (n int) {
	for _, c := range checks {
		for _, f := range c.Findings {
			if f.Severity == of {
				n++
			}
		}
	}
	return n
}

// sheet is what a check writes on.
type sheet struct {
	check    string
	findings []Finding
}

func (s *sheet) add(sev Severity, subject, remedy, format string, args ...any) {
	s.findings = append(s.findings, Finding{Severity: sev, Check: s.check, Subject: subject, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (s *sheet) problem(subject, remedy, format string, args ...any) {
	s.add(Problem, subject, remedy, format, args...)
}

func (s *sheet) warn(subject, remedy, format string, args ...any) {
	s.add(Warning, subject, remedy, format, args...)
}

func (s *sheet) note(subject, format string, args ...any) { s.add(Note, subject, "", format, args...) }
