package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sighting notices when a file of several trees gets new content, by inotify:
// it costs nothing while nothing happens, so it does not slow down what it
// measures. One goroutine uses it.
type sighting struct {
	fd    int
	files []string
}

// newSighting watches the directories that hold name in each of the roots;
// they must exist.
func newSighting(t testing.TB, name string, roots ...string) *sighting {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	s := &sighting{fd: fd}
	for _, root := range roots {
		p := filepath.Join(root, name)
		if _, err := unix.InotifyAddWatch(fd, filepath.Dir(p), unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE); err != nil {
			t.Fatal(err)
		}
		s.files = append(s.files, p)
	}
	return s
}

// wait returns when all the files hold want, or an error after limit.
func (s *sighting) wait(want string, limit time.Duration) error {
	end := time.Now().Add(patient(limit))
	buf := make([]byte, 64<<10)
	for {
		missing := ""
		for _, f := range s.files {
			if got, err := os.ReadFile(f); err != nil || string(got) != want {
				missing = f
				break
			}
		}
		if missing == "" {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("%s did not get the content within %v", missing, patient(limit))
		}
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(min(left, time.Second).Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			return err
		}
		_, _ = unix.Read(s.fd, buf) // which event it was does not matter
	}
}
