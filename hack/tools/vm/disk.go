package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
)

// keptSize is as much as the disk can hold; the file is as large as what it does hold.
const keptSize = "8G"

// makeKept makes the disk that outlives the machine, unless it is there.
func (o *options) makeKept(ctx context.Context) error {
	if _, err := os.Stat(o.disk); o.disk == "" || !errors.Is(err, os.ErrNotExist) {
		return nil // QEMU says what else may be wrong with it
	}
	mke2fs, err := tool("mke2fs", "e2fsprogs")
	if err != nil {
		return err
	}
	half := o.disk + ".new" // of a run that was killed
	if err := os.Remove(half); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := output(exec.CommandContext(ctx, mke2fs, "-q", "-t", "ext4", "-m", "0", "-E", "root_owner=0:0", half, keptSize)); err != nil {
		return err
	}
	return os.Rename(half, o.disk)
}

// drive is the option by which QEMU has the disk.
func drive(path string) string {
	return "if=virtio,format=raw,cache=unsafe,file=" + strings.ReplaceAll(path, ",", ",,")
}
