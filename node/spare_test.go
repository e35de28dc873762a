package node

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// On a full disk the room that was kept is given up for a second attempt, once.
func TestASpareIsForTheFullDisk(t *testing.T) {
	d := dataDir(t.TempDir())
	d.keepSpare()
	var st unix.Stat_t
	if err := unix.Stat(d.spare(), &st); err != nil || st.Blocks*512 < spareSize {
		t.Fatalf("%d bytes are kept, want %d: %v", st.Blocks*512, spareSize, err)
	}
	tries := 0
	write := func() error {
		if tries++; tries == 1 {
			return fmt.Errorf("write node.json: %w", unix.ENOSPC)
		}
		if _, err := os.Stat(d.spare()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the room is still taken: %v", err)
		}
		return nil
	}
	if err := d.orSpare(write); err != nil || tries != 2 {
		t.Errorf("%d attempts: %v", tries, err)
	}
	tries = 0
	if err := d.orSpare(write); !errors.Is(err, unix.ENOSPC) || tries != 1 {
		t.Errorf("without a spare: %d attempts: %v", tries, err)
	}
	d.keepSpare()
	if err := d.orSpare(func() error { return unix.EIO }); !errors.Is(err, unix.EIO) {
		t.Error(err)
	}
	if _, err := os.Stat(d.spare()); err != nil {
		t.Errorf("another failure took the spare: %v", err)
	}
}
