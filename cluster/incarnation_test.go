package cluster

import "testing"

func TestTheNextIncarnationIsNewer(t *testing.T) {
	i := FirstIncarnation
	for want := uint64(2); want < 50; want++ {
		a, b := i.Next(), i.Next()
		if a <= i || b <= i || a.Number() != want || a.String() == "" {
			t.Fatalf("after %d come %d (%s) and %d", i, a, a, b)
		}
		if a == b {
			t.Fatalf("two lives that began apart are the same: %d", a)
		}
		i = min(a, b)
		if i.Next() <= max(a, b) {
			t.Fatal("the life after either of two is newer than both")
		}
	}
	if Incarnation(0).Number() != 1 {
		t.Error("what is not known is the first")
	}
}
