package sealed

import (
	"errors"
	"fmt"
)

// ErrDamaged: a file does not hold what was written to it. See DamagedError.
var ErrDamaged = errors.New("damaged")

// ErrInUse: another process has the file open.
var ErrInUse = errors.New("the file is in use; does another daemon run on this data directory?")

// DamagedError names the damaged file.
type DamagedError struct {
	File string
	Err  error // what is wrong with it
}

func (e *DamagedError) Error() string { return fmt.Sprintf("%s is damaged: %v", e.File, e.Err) }

func (e *DamagedError) Unwrap() error { return e.Err }

// Is makes it an ErrDamaged.
func (e *DamagedError) Is(target error) bool { return target == ErrDamaged }
