package layer

// Limits bound what one archive may ask of this machine.
type Limits struct {
	Entries  int   // entries of an archive
	Path     int   // bytes of a path
	Depth    int   // names in a path
	Metadata int64 // bytes of names, link targets and xattrs, which are held in memory
	Sparse   int64 // bytes that sparse files pretend to have
	Archive  int64 // bytes of the archive; 0 is no limit
}

// DefaultLimits are far above what images of good will contain.
var DefaultLimits = Limits{
	Entries:  2 << 20,
	Path:     4095, // what system calls accept
	Depth:    256,
	Metadata: 256 << 20,
	Sparse:   64 << 30,
}

// Option changes how a store is opened.
type Option func(*store)

// WithLimits replaces DefaultLimits.
func WithLimits(l Limits) Option { return func(s *store) { s.limits = l } }
