package layer

import (
	"archive/tar"
	"encoding/binary"
	"slices"
	"strings"

	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

const (
	xattrRecord   = "SCHILY.xattr." // the prefix of PAX records that carry xattrs
	capability    = "security.capability"
	maxXattrName  = 255       // XATTR_NAME_MAX
	maxXattrValue = 1<<16 - 1 // an EROFS image has 16 bits for the length
	maxXattrs     = 64 << 10  // of one inode, names and values; listxattr(2) shows no more
)

// parseXattrs applies the policy for extended attributes:
//
//   - user.* of files and directories, trusted.* and security.capability are kept;
//   - *.overlay.* is refused: it would tell our own overlayfs where to look;
//   - all others are dropped. Labels (security.selinux, ima, …) belong to the
//     machine that built the image, ACLs would change the mode behind our
//     back, and com.apple.* means nothing here.
func parseXattrs(h *tar.Header, fileType uint32) ([]tree.Xattr, error) {
	var kept []tree.Xattr
	total := 0
	for key, value := range h.PAXRecords {
		name, found := strings.CutPrefix(key, xattrRecord)
		if !found {
			continue
		}
		keep, err := judgeXattr(name, value, fileType)
		if err != nil {
			return nil, err
		}
		if keep {
			kept = append(kept, tree.Xattr{Name: name, Value: []byte(value)})
			total += len(name) + 1 + len(value)
		}
	}
	if total > maxXattrs {
		return nil, invalidf("%d bytes of xattrs, at most %d are allowed", total, maxXattrs)
	}
	slices.SortFunc(kept, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return kept, nil
}

func judgeXattr(name, value string, fileType uint32) (keep bool, err error) {
	space, rest, _ := strings.Cut(name, ".")
	switch {
	case (space == "user" || space == "trusted") && (rest == "overlay" || strings.HasPrefix(rest, "overlay.")):
		return false, invalidf("xattr %q is reserved for overlayfs", name)
	case space == "user":
		keep = fileType == unix.S_IFREG || fileType == unix.S_IFDIR // the kernel has it nowhere else
	case space == "trusted":
		keep = true
	case name == capability:
		keep = fileType == unix.S_IFREG
	}
	if !keep {
		return false, nil
	}
	switch {
	case rest == "" || len(name) > maxXattrName || strings.IndexByte(name, 0) >= 0:
		return false, invalidf("xattr name %.64q", name)
	case len(value) > maxXattrValue:
		return false, invalidf("xattr %q of %d bytes, at most %d are possible", name, len(value), maxXattrValue)
	case name == capability && !validCapability(value):
		return false, invalidf("xattr %q is malformed", name)
	}
	return true, nil
}

// validCapability knows the two versions of file capabilities that the kernel
// still accepts (VFS_CAP_REVISION_2 and 3). An image file is not checked by
// setxattr(2), so we do it for both forms.
func validCapability(value string) bool {
	if len(value) < 4 {
		return false
	}
	const effective = 1
	switch binary.LittleEndian.Uint32([]byte(value)) &^ effective {
	case 0x02000000:
		return len(value) == 20
	case 0x03000000:
		return len(value) == 24
	}
	return false
}
