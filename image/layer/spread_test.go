package layer

import (
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/internal/spread"
)

func TestLayersAreMadeWhereExt4SpreadsThem(t *testing.T) {
	s := openStore(t, Directory).(*store)
	fd, err := unix.Open(s.path(unfinishedDir), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type != unix.EXT4_SUPER_MAGIC {
		t.Skip("kernel feature missing: FS_TOPDIR_FL on this file system, which is not ext4")
	}
	if flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS); err != nil || flags&spread.Flag == 0 {
		t.Errorf("flags %#x, %v; want FS_TOPDIR_FL", flags, err)
	}
}
