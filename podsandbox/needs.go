package podsandbox

import (
	"context"

	"cri-mini/image"
	"cri-mini/internal/audit"
	"cri-mini/podsandbox/network"
	"cri-mini/runtime/selinux"
)

// Images is what this package needs of the image store.
type Images interface {
	// Get finds an image by any of its names.
	Get(name string) (image.Image, error)
	Layers(id string) ([]image.Layer, error)
	// Hold keeps the layers of an image until owner releases all it holds.
	Hold(id, owner string) error
	Release(owner string)
	// StoredLayers lists the layers; those that an image or a pull uses have an
	// owner.
	StoredLayers() ([]audit.Thing, error)
	// MissingLayers tells what images lack.
	MissingLayers() []audit.Finding
}

// AppArmor is what this package needs of the kernel's profiles.
type AppArmor interface {
	Enabled() bool
	// Loaded gives no error for a profile that a process can be put under.
	Loaded(name string) error
	LoadDefault(ctx context.Context) error
	// WarnWithout is told why the default profile is not there for those who
	// did not ask for it.
	WarnWithout(err error)
}

// SELinux is what this package needs of the kernel's labels.
type SELinux interface {
	// Policy is nil where labels mean nothing.
	Policy() (*selinux.Policy, error)
	// Valid gives no error for a label that the policy has.
	Valid(label string) error
}

// Network is what this package needs of the network of pods.
type Network interface {
	Setup(ctx context.Context, p network.Pod) (network.Result, error)
	Teardown(ctx context.Context, p network.Pod) error
	Result(pod string) (network.Result, bool)
	// Collect takes down all pods but the live ones.
	Collect(live []string) error
	// Connections lists what was made for pods.
	Connections() ([]audit.Thing, error)
	// LostConnections tells which connected pods have lost theirs.
	LostConnections() ([]audit.Finding, error)
}
