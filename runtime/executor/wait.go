package executor

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// waitExit waits until the process of a pidfd has ended.
func waitExit(ctx context.Context, pidfd *os.File) error {
	if pidfd == nil {
		return nil
	}
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 20)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("a killed process does not end: %w", ctx.Err())
		}
	}
}

// sleep is a short wait that ends with ctx.
func sleep(ctx context.Context) error {
	select {
	case <-time.After(time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
