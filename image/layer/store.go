package layer

import "errors"

// OpenDirectory opens, or makes, a store of directories at root.
func OpenDirectory(root string) (Store, error) { return nil, errors.ErrUnsupported }

// OpenErofs opens, or makes, a store of EROFS images at root.
func OpenErofs(root string) (Store, error) { return nil, errors.ErrUnsupported }

// Open opens a store of the given form, Auto included.
func Open(root, form string) (Store, error) { return nil, errors.ErrUnsupported }
