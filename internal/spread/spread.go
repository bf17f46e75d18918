// Package spread keeps folders of a disk from crowding together.
//
// Folders made in a place that is spread go to different block groups of ext4, as
// chattr +T has it. Otherwise all crowd into one, where each new inode is found
// only after a search through those that were deleted of late: ten times slower
// after a large removal. The package knows nothing of what is in the folders.
package spread

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Flag is FS_TOPDIR_FL, set on a folder whose children are spread.
const Flag = 0x00020000

// Children spreads what will be made in the folder. Most file systems do not
// know of it, so an error is of interest to few.
func Children(folder string) error {
	fd, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("spread %s: %w", folder, err)
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && flags&Flag == 0 {
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|Flag))
	}
	if err != nil {
		return fmt.Errorf("spread %s: %w", folder, err)
	}
	return nil
}
