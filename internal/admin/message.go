package admin

import (
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/audit"
)

// The paths of the requests, all POST.
const (
	pathStop   = "/v1/stop"
	pathPull   = "/v1/pull"
	pathImport = "/v1/import"
	pathExec   = "/v1/exec"
	pathAttach = "/v1/attach"
	pathRun    = "/v1/run"
	pathWhy    = "/v1/why"
	pathVerify = "/v1/verify"
	pathAudit  = "/v1/audit"
)

// StopRequest ends the daemon, and with Pods all that it made.
type StopRequest struct {
	Pods bool
}

// PullRequest fetches an image. The answer is a line of JSON per Progress.
type PullRequest struct {
	Image    string
	Username string
	Password string
}

// ImportRequest takes an image from a path on the node.
type ImportRequest struct {
	Path string
	// Rootfs says that the path is a root file system: a directory, a tar
	// archive or one static program. Else it is an OCI layout or an archive of
	// images; a directory that is no layout is a root file system anyway.
	Rootfs bool
	Name   string

	// What to write into the config of a root file system's image.
	Entrypoint, Cmd, Env []string
	WorkingDir, User     string
}

// ImportAnswer lists what came in.
type ImportAnswer struct {
	Images []Imported
}

// Imported is one image that came in.
type Imported struct {
	ID   string
	Tags []string
}

// ExecRequest starts a program in a running container.
type ExecRequest struct {
	Container string
	Args      []string
	TTY       bool
	Stdin     bool
	Size      Size
}

// Size is that of a terminal; zero is unknown.
type Size struct{ Width, Height uint16 }

// AttachRequest joins the streams of a container's first program.
type AttachRequest struct {
	Container string
}

// RunRequest makes a pod with one container, which live as long as the
// conversation.
type RunRequest struct {
	Pod       *criapi.PodSandboxConfig
	Container *criapi.ContainerConfig
	// Rootfs is a directory, an archive or a static program on the node to
	// use instead of an image.
	Rootfs string
	Size   Size
}

// WhyRequest asks for what is known of a pod or container, also of one that is
// gone.
type WhyRequest struct {
	Word string // its name, or the beginning of its id
}

// AuditRequest compares kernel and disk with the records. With Remove, what no
// record stands for is taken away.
type AuditRequest struct {
	Remove bool
}

// AuditAnswer is what was found, by whom.
type AuditAnswer struct {
	audit.Report
	Daemon, Monitor int // process ids
}

// StartError says that the program of a run could not be started.
type StartError struct {
	Code  int // the exit code that a shell gives: 126 or 127 where that fits
	Words string
}

func (e *StartError) Error() string { return e.Words }

// startCode is the header with the Code of a StartError.
const startCode = "Start-Code"

// Progress is one step of a pull: a layer's, or the end.
type Progress struct {
	Layer *Layer `json:",omitempty"`
	ID    string `json:",omitempty"` // of the finished image
	Error string `json:",omitempty"`
	Hint  string `json:",omitempty"` // what to do about Error
}

// Layer tells how far one layer is; see image.Progress.
type Layer struct {
	Digest string
	Phase  string
	Done   int64
	Total  int64
}

// VerifyRequest compares the layers of images with what was written when they
// were unpacked. The answer is a line of JSON per Verification.
type VerifyRequest struct {
	Images   []string // names or ids; none means all
	Repair   bool     // fetch anew what is not whole
	Username string   // for that
	Password string
}

// Verification is one step of a verify: a layer, or the end.
type Verification struct {
	Layer    *VerifiedLayer `json:",omitempty"`
	Complete bool           `json:",omitempty"`
	Error    string         `json:",omitempty"`
}

// VerifiedLayer tells of one layer; see image.Verified.
type VerifiedLayer struct {
	Layer       string
	Images      []string
	Whole       bool
	Differences []Difference `json:",omitempty"`
	Unknown     string       `json:",omitempty"` // why it cannot be compared
	Repaired    bool         `json:",omitempty"`
	Failed      string       `json:",omitempty"` // why it is not repaired
}

// Difference is one thing that is not as it was written.
type Difference struct {
	Path string `json:",omitempty"`
	What string
}
