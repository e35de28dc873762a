package sealed

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// contents is what a file holds: bucket/key → value.
type contents map[string]string

func (c contents) put(t testing.TB, db *DB) {
	t.Helper()
	err := db.Update(func(tx *Tx) error {
		for k, v := range c {
			if err := tx.Bucket(k[:1]).Put([]byte(k[2:]), []byte(v)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func read(db *DB) (contents, error) {
	c := contents{}
	err := db.View(func(tx *Tx) error {
		for _, name := range []string{"a", "b"} {
			err := tx.Bucket(name).ForEach(func(k, v []byte) error {
				c[name+"/"+string(k)] = string(v)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return c, err
}

func mustOpen(t testing.TB, file string) *DB {
	t.Helper()
	db, _, err := Open(file, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func mustClose(t testing.TB, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestHoldsWhatAMapHolds(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		file := filepath.Join(dir, fmt.Sprint(n))
		db := mustOpen(t, file)
		want := contents{}
		key := rapid.Custom(func(rt *rapid.T) string {
			return fmt.Sprintf("%s/%04d", rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "bucket"), rapid.IntRange(0, 400).Draw(rt, "key"))
		})
		for range rapid.IntRange(1, 12).Draw(rt, "rounds") {
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0, 1:
				some := rapid.MapOfN(key, rapid.StringN(0, 900, -1), 1, 40).Draw(rt, "put")
				contents(some).put(t, db)
				maps.Copy(want, some)
			case 2:
				k := key.Draw(rt, "delete")
				delete(want, k)
				if err := db.Update(func(tx *Tx) error { return tx.Bucket(k[:1]).Delete([]byte(k[2:])) }); err != nil {
					rt.Fatal(err)
				}
			case 3:
				from, to := key.Draw(rt, "from"), fmt.Sprintf("%04d", rapid.IntRange(0, 400).Draw(rt, "to"))
				maps.DeleteFunc(want, func(k, _ string) bool { return k[:1] == from[:1] && k[2:] >= from[2:] && k[2:] <= to })
				if err := db.Update(func(tx *Tx) error { return tx.Bucket(from[:1]).DeleteRange([]byte(from[2:]), []byte(to)) }); err != nil {
					rt.Fatal(err)
				}
			case 4:
				refused := errors.New("refused")
				err := db.Update(func(tx *Tx) error { _ = tx.Bucket("a").Put([]byte("never"), nil); return refused })
				if !errors.Is(err, refused) {
					rt.Fatal(err)
				}
			}
			if rapid.Bool().Draw(rt, "reopen") {
				mustClose(t, db)
				db = mustOpen(t, file)
			}
		}
		if got, err := read(db); err != nil || !maps.Equal(got, want) {
			rt.Fatalf("%d values became %d (%v)", len(want), len(got), err)
		}
		mustClose(t, db)
	})
}

func TestSecondOpenIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	db := mustOpen(t, file)
	defer mustClose(t, db)
	if _, _, err := Open(file, "a", "b"); !errors.Is(err, ErrInUse) || errors.Is(err, ErrDamaged) {
		t.Fatalf("a file that is in use was opened: %v", err)
	}
}

// TestACrashedCreationIsTakenUp: what a creation left beside does not disturb.
func TestACrashedCreationIsTakenUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file+".new", []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, fresh, err := Open(file, "a", "b")
	if err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	mustClose(t, db)
}
