package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/gatesync/gatesync/config"
	"github.com/gatesync/gatesync/manifest"
	pb "github.com/gatesync/gatesync/proto/gatesync/v1"
)

// seesWithin is how long a look into a tree's directory may take.
const seesWithin = 3 * time.Second

// sights answers whether a name stands under .gatesync of this node's trees:
// that is how `doctor` on another node finds out whether the two have one
// directory. A look may hang in a mount for ever; so there is one at a time per
// tree, in a goroutine that is left behind. Safe for concurrent use.
type sights struct {
	roots map[string]string

	mu   sync.Mutex
	busy map[string]bool
}

func newSights(trees []config.Tree) *sights {
	s := &sights{roots: map[string]string{}, busy: map[string]bool{}}
	for _, t := range trees {
		s.roots[t.Name] = t.Path
	}
	return s
}

var noncePattern = regexp.MustCompile(`^doctor-[0-9a-f]{16}$`)

// Sees tells whether a name stands in this node's tree.
func (s *clusterService) Sees(ctx context.Context, req *pb.SeesRequest) (*pb.SeesResponse, error) {
	if _, err := s.caller(ctx); err != nil {
		return nil, err
	}
	return s.sights.ask(ctx, req), nil
}

func (s *sights) ask(ctx context.Context, req *pb.SeesRequest) *pb.SeesResponse {
	root, ok := s.roots[req.GetTree()]
	if !ok {
		return &pb.SeesResponse{}
	}
	res := &pb.SeesResponse{Has: true}
	if !noncePattern.MatchString(req.GetNonce()) {
		res.Error = "this version does not know such a name"
		return res
	}
	if !s.begin(req.GetTree()) {
		res.Error = "an earlier look into its directory has not ended: it hangs"
		return res
	}
	ctx, cancel := context.WithTimeout(ctx, seesWithin)
	defer cancel()
	ch := make(chan error, 1)
	go func() {
		err := look(root, req.GetNonce())
		s.end(req.GetTree())
		ch <- err
	}()
	select {
	case err := <-ch:
		if res.Sees = err == nil; !res.Sees && !errors.Is(err, fs.ErrNotExist) {
			res.Error = err.Error()
		}
	case <-ctx.Done():
		res.Error = fmt.Sprintf("its directory does not answer within %s", seesWithin)
	}
	return res
}

func (s *sights) begin(tree string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := !s.busy[tree]
	s.busy[tree] = true
	return free
}

func (s *sights) end(tree string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, tree)
}

// look opens the directory anew: NFS then asks the server.
func look(root, nonce string) error {
	r, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = r.Lstat(filepath.Join(manifest.MarkerDir, nonce))
	return err
}
