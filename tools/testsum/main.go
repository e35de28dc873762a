package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

func main() {
	noskip := flag.Bool("noskip", false, "fail where a test was skipped")
	flag.Parse()
	s, err := summarize(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
	if s.failed > 0 || s.broken > 0 || s.passed == 0 || *noskip && s.skipped > 0 {
		os.Exit(1)
	}
}

// event is one line of `go test -json`.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// sum counts tests, subtests included; broken counts packages that failed
// without a failing test (they did not build, or the process died).
type sum struct{ passed, failed, skipped, broken int }

// summarize reads events until EOF and prints the report to w.
func summarize(r io.Reader, w io.Writer) (s sum, err error) {
	type key struct{ pkg, test string }
	output := map[key]*strings.Builder{} // of what has not ended yet
	failedIn := map[string]bool{}        // packages with a failing test
	var skips, failures []string

	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(w, lines.Text()) // the go command's own words
			continue
		}
		if e.Package == "" {
			e.Package = e.ImportPath
		}
		k := key{e.Package, e.Test}
		switch e.Action {
		case "output", "build-output":
			if output[k] == nil {
				output[k] = &strings.Builder{}
			}
			output[k].WriteString(e.Output)
			continue
		case "pass", "fail", "skip", "build-fail":
		default:
			continue
		}
		printed := ""
		if o := output[k]; o != nil {
			printed = o.String()
			delete(output, k)
		}
		if e.Test == "" {
			if e.Action == "build-fail" {
				fmt.Fprint(w, printed)
				continue
			}
			if e.Action == "fail" && !failedIn[e.Package] {
				s.broken++
				fmt.Fprint(w, printed)
			}
			if e.Action != "skip" { // skip: no test files
				fmt.Fprintf(w, "%-4s %s (%.1f s)\n", e.Action, e.Package, e.Elapsed)
			}
			continue
		}
		switch e.Action {
		case "pass":
			s.passed++
		case "skip":
			s.skipped++
			skips = append(skips, e.Package+" "+e.Test+"\n"+printed)
		case "fail":
			s.failed++
			failedIn[e.Package] = true
			failures = append(failures, e.Package+" "+e.Test+"\n"+messages(printed))
			fmt.Fprintf(w, "---- %s %s\n%s", e.Package, e.Test, printed)
		}
	}
	for k, o := range output { // the process died in the middle of these
		fmt.Fprintf(w, "---- %s %s did not end\n%s", k.pkg, k.test, o)
	}
	for _, skip := range skips {
		fmt.Fprintf(w, "SKIPPED %s", skip)
	}
	for _, failure := range failures {
		fmt.Fprintf(w, "FAILED %s", failure)
	}
	if s.broken > 0 {
		fmt.Fprintf(w, "%d packages did not build or died\n", s.broken)
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	return s, lines.Err()
}

// messages are the first lines of what a test said itself. What it dumps (its
// first line begins with ----) stands above, where there is room for it.
func messages(printed string) string {
	var b strings.Builder
	for line := range strings.Lines(printed) {
		if m := message.FindStringSubmatch(line); m != nil && !strings.HasPrefix(m[1], "----") {
			b.WriteString(line)
		}
	}
	return b.String()
}

var message = regexp.MustCompile(`^ +\S+_test\.go:\d+: (.*)`)
