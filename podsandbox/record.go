package podsandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"cri-mini/internal/atomicfile"
	"cri-mini/internal/passwd"
	"cri-mini/runtime/spec"
)

// On disk:
//
//	pods/<id>/pod.json                         what was asked for
//	pods/<id>/etc/                             hosts, hostname, resolv.conf
//	pods/<id>/resources.json                   overhead and resources after an update
//	pods/<id>/stopping, then stopped           it will never be ready again; nothing is left to stop
//	pods/<id>/containers/<id>/container.json   what was asked for, and made of it
//	                          start.json       it was started
//	                          exit.json        it ended, or could not be started
//	                          resources.json   the limits after an update
//
// Each file has one writer and is written once (resources.json: replaced). The
// name of a folder says how far its pod or container is: with one of these
// before the id it is not there yet, or not there any more, and a start after
// a crash takes it away together with all it stands for.
const (
	creating = ".creating-"
	removing = ".removing-"
)

// recordVersion is raised when an older program could not read the records.
const recordVersion = 1

type podRecord struct {
	Version int
	ID      string
	Boot    string // which boot of the node its namespaces belong to
	Created time.Time
	Handler string
	Spec    spec.Sandbox
	Config  json.RawMessage
}

type containerRecord struct {
	Version    int
	ID         string
	Created    time.Time
	ImageID    string
	ImageRef   string
	Volumes    map[int]string // images mounted, by their place in Config.mounts
	StopSignal syscall.Signal
	User       passwd.User
	Spec       spec.Container
	// Env is that of the process when it holds bytes that are no text, which
	// JSON would not keep.
	Env    [][]byte `json:",omitempty"`
	Config json.RawMessage
}

// keepEnv fills in Env if need be.
func (r *containerRecord) keepEnv() {
	env := r.Spec.Process.Env
	if !slices.ContainsFunc(env, func(v string) bool { return !utf8.ValidString(v) }) {
		return
	}
	for _, v := range env {
		r.Env = append(r.Env, []byte(v))
	}
}

// restoreEnv is the opposite of keepEnv.
func (r *containerRecord) restoreEnv() {
	for i, v := range r.Env {
		r.Spec.Process.Env[i] = string(v)
	}
}

// end is how a container ended or why it never ran.
type end struct {
	spec.Exit
	Reason  string
	Message string `json:",omitempty"`
}

func encode(m proto.Message) (json.RawMessage, error) {
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
}

// decode skips fields that a newer program knew.
func decode(data json.RawMessage, m proto.Message) error {
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, m)
}

// readOptional leaves v alone when there is no such file, or nothing in it.
func readOptional(path string, v any) (found bool, err error) {
	err = atomicfile.ReadJSON(path, v)
	if os.IsNotExist(err) || errors.Is(err, atomicfile.ErrUnwritten) {
		return false, nil
	}
	return err == nil, err
}

// errNewer stops a daemon that is older than its records: putting them aside
// would end containers that a newer one could serve.
var errNewer = errors.New("written by a newer version of this program")

func checkRecord(dir folder, name string, version int, id string) error {
	switch {
	case version > recordVersion:
		return fmt.Errorf("%s: %w", dir.path(name), errNewer)
	case version != recordVersion:
		return fmt.Errorf("%s: version %d is unknown", name, version)
	case id != dir.id:
		return fmt.Errorf("%s: is that of %q", name, id)
	}
	return nil
}

// folder is the place of one pod or container. It moves once when it is
// complete and once when it goes.
type folder struct {
	parent, id string
	mark       string // creating, removing or ""
}

func (f folder) path(names ...string) string {
	return filepath.Join(append([]string{f.parent, f.mark + f.id}, names...)...)
}

func (f *folder) move(mark string) error {
	to := *f
	to.mark = mark
	if err := os.Rename(f.path(), to.path()); err != nil {
		return err
	}
	f.mark = mark
	return nil
}

func (f folder) write(name string, v any) error { return atomicfile.JSON(f.path(name), v) }

// folders lists what lies in parent.
func folders(parent string) ([]folder, error) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, err
	}
	var list []folder
	for _, e := range entries {
		f := folder{parent: parent}
		f.mark, f.id = markOf(e.Name())
		list = append(list, f)
	}
	return list, nil
}

// markOf takes the name of a folder apart.
func markOf(name string) (mark, id string) {
	for _, mark := range []string{creating, removing} {
		if id, marked := strings.CutPrefix(name, mark); marked {
			return mark, id
		}
	}
	return "", name
}
