package erofs

import (
	"fmt"
	"strings"

	"cri-mini/image/layer/tree"
)

// encodeXattrs makes the body that follows an inode, nil if it has no xattrs.
func encodeXattrs(xattrs []tree.Xattr, opaque bool) ([]byte, error) {
	if len(xattrs) == 0 && !opaque {
		return nil, nil
	}
	body := make([]byte, xattrHeaderSize)
	if opaque {
		xattrs = append(xattrs[:len(xattrs):len(xattrs)], tree.Xattr{Name: "trusted.overlay.opaque", Value: []byte("y")})
	}
	for _, x := range xattrs {
		index, name := splitXattr(x.Name)
		if index == 0 || len(name) == 0 || len(name) > 255 || len(x.Value) > 1<<16-1 {
			return nil, fmt.Errorf("xattr %.64q of %d bytes cannot be stored", x.Name, len(x.Value))
		}
		body = append(body, byte(len(name)), index)
		body = le.AppendUint16(body, uint16(len(x.Value)))
		body = append(body, name...)
		body = append(body, x.Value...)
		for len(body)%xattrEntrySize != 0 {
			body = append(body, 0)
		}
	}
	if len(body) > xattrHeaderSize+xattrEntrySize*(1<<16-2) {
		return nil, fmt.Errorf("%d bytes of xattrs cannot be stored", len(body))
	}
	return body, nil
}

func splitXattr(name string) (index byte, rest string) {
	for _, space := range xattrSpaces {
		if rest, ok := strings.CutPrefix(name, space.prefix); ok {
			return space.index, rest
		}
	}
	return 0, name
}
