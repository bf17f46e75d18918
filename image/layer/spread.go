package layer

import (
	"log/slog"

	"golang.org/x/sys/unix"
)

const topDir = 0x00020000 // FS_TOPDIR_FL

// spread has ext4 put the directories made in path into different block
// groups, as chattr +T does. Otherwise all layers crowd into one group, where
// each new inode is found only after a search through those deleted of late:
// ten times slower after a large removal.
func spread(path string) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && flags&topDir == 0 {
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|topDir))
	}
	if err != nil {
		slog.Debug("file system does not spread directories", "path", path, "err", err)
	}
}
