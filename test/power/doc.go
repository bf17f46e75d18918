// Package power cuts the power of a node at any write, as often as it is asked
// to, and looks at what its image store then serves.
//
// A recording is what a daemon wrote to its disk while images were pulled,
// removed and repaired, with what its clients knew at which moment. A cut is the
// disk as it may be when the power goes: an image store, or a whole daemon, is
// started on it. Every layer that it serves is compared with the archive that
// the registry has, file by file.
package power
