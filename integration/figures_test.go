package integration

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// figures collects what the benchmarks measured, for one table at the end.
var figures table

// table is safe for concurrent use.
type table struct {
	mu   sync.Mutex
	rows []figure
}

// figure is one thing measured of one program; want is what gatesync is to reach.
type figure struct {
	what, who string
	value     float64
	unit      string
	want      string
}

const ours = "gatesync"

func (t *table) add(f figure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, f)
}

// took adds a duration, in milliseconds.
func (t *table) took(what, who string, d time.Duration, want string) {
	t.add(figure{what, who, float64(d.Microseconds()) / 1000, "ms", want})
}

// print writes the table, with each peer as a multiple of gatesync.
func (t *table) print(w io.Writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.rows) == 0 {
		return
	}
	base := map[string]float64{}
	var order []string
	for _, f := range t.rows {
		if f.who == ours {
			base[f.what] = f.value
		}
		if !slices.Contains(order, f.what) {
			order = append(order, f.what)
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "\nfigure\tprogram\tvalue\t× gatesync\twanted\n")
	for _, what := range order {
		for _, f := range t.rows {
			if f.what != what {
				continue
			}
			ratio, want := "", f.want
			if f.who != ours {
				want = ""
				if b := base[what]; b > 0 {
					ratio = fmt.Sprintf("%.1f", f.value/b)
				}
			}
			fmt.Fprintf(tw, "%s\t%s\t%.4g %s\t%s\t%s\n", f.what, f.who, f.value, f.unit, ratio, want)
		}
	}
	_ = tw.Flush()
}

// quantile returns the q-th quantile of some durations.
func quantile(all []time.Duration, q float64) time.Duration {
	s := slices.Sorted(slices.Values(all))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}
