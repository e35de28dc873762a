package main

import (
	"strings"
	"testing"
)

func TestSummarize(t *testing.T) {
	tests := []struct {
		name, in string
		want     sum
		says     string
	}{
		{"all well",
			`{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":1}
{"Action":"pass","Package":"p","Elapsed":2}`,
			sum{passed: 1}, "pass p (2.0 s)\n1 passed, 0 failed, 0 skipped\n"},
		{"failure shows its output",
			`{"Action":"output","Package":"p","Test":"TestA","Output":"got 1\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p","Elapsed":2}`,
			sum{failed: 1}, "---- p TestA\ngot 1\n"},
		{"at the end, why it failed",
			`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: got 1\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    node_test.go:9: ---- its log\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"        running\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p","Elapsed":2}`,
			sum{failed: 1}, "FAILED p TestA\n    a_test.go:7: got 1\n0 passed, 1 failed"},
		{"skip is named",
			`{"Action":"output","Package":"p","Test":"TestA","Output":"no folder\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}`,
			sum{skipped: 1}, "SKIPPED p TestA\nno folder\n"},
		{"a package that does not build",
			`{"ImportPath":"p [p.test]","Action":"build-output","Output":"p.go:1: no\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`,
			sum{broken: 1}, "p.go:1: no\n"},
		{"a package that dies in a test",
			`{"Action":"output","Package":"p","Test":"TestA","Output":"working\n"}
{"Action":"output","Package":"p","Output":"panic: no\n"}
{"Action":"fail","Package":"p"}`,
			sum{broken: 1}, "TestA did not end\nworking\n"},
		{"a package without tests", `{"Action":"skip","Package":"p"}`, sum{}, "0 passed"},
		{"words of the go command", "go: no such tool", sum{}, "go: no such tool\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			got, err := summarize(strings.NewReader(tt.in), &out)
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
			if !strings.Contains(out.String(), tt.says) {
				t.Errorf("%q is not in the report:\n%s", tt.says, &out)
			}
		})
	}
}
