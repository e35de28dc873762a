package raftstore

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gatesync/gatesync/manifest"
)

// BenchmarkLoneCommit measures one change at a time, from its proposal on a
// follower until the other follower's machine has it, with the default times.
func BenchmarkLoneCommit(b *testing.B) {
	c := newTestCluster(b)
	c.tune = Tuning{}
	stores := c.found(3)
	_, others := c.leader(stores)
	news, stop := others[1].Watch()
	defer stop()
	var took []time.Duration
	b.ResetTimer()
	for i := range b.N {
		name := fmt.Sprint("d", i)
		began := time.Now()
		c.mkdir(others[0], name)
		for !has(others[1], name) {
			<-news
		}
		took = append(took, time.Since(began))
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkApply measures the machine alone: one path of 50,000.
func BenchmarkApply(b *testing.B) {
	m := founded()
	fill := changeset(1, manifest.Atomic)
	for i := range 50_000 {
		fill.Changes = append(fill.Changes, write(fmt.Sprintf("dir-%02d-%d", i%100, i), 0, file("x")))
	}
	mustCommit(b, m, fill)
	expect := manifest.Revision(1)
	b.ResetTimer()
	for i := range b.N {
		content := file(fmt.Sprint(i))
		expect = mustCommit(b, m, changeset(uint64(i)+2, manifest.PerPath, write("dir-07-7", expect, content))).Revision
		m.View("server") // somebody always looks
	}
}
