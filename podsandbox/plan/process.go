package plan

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/passwd"
	"cri-mini/runtime/spec"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// process plans the first process of a container.
func process(r Request, user passwd.User) (spec.Process, error) {
	security := r.Config.GetLinux().GetSecurityContext()
	args, err := arguments(r.Config, r.Image)
	if err != nil {
		return spec.Process{}, err
	}
	env, err := environment(r, user)
	if err != nil {
		return spec.Process{}, err
	}
	caps, err := capabilities(r)
	if err != nil {
		return spec.Process{}, err
	}
	filter, flags, err := seccompFilter(r, caps)
	if err != nil {
		return spec.Process{}, err
	}
	score := int(r.Config.GetLinux().GetResources().GetOomScoreAdj())
	cwd, err := workingDir(r.Config.WorkingDir, r.Image.WorkingDir)
	if err != nil {
		return spec.Process{}, err
	}
	p := spec.Process{
		Args:         args,
		Env:          env,
		Cwd:          cwd,
		Terminal:     r.Config.Tty,
		User:         spec.User{UID: user.UID, GID: user.GID, Groups: user.Groups},
		Capabilities: caps,
		NoNewPrivs:   security.GetNoNewPrivs(),
		Seccomp:      filter,
		SeccompFlags: flags,
		AppArmor:     r.AppArmor,
		SELinux:      r.SELinux,
		// Always set: otherwise the program would be as safe from the OOM
		// killer as the monitor.
		OOMScoreAdj: &score,
	}
	if n := r.Facts.OpenFiles; n > 0 {
		p.Rlimits = []spec.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: n, Hard: n}}
	}
	return p, nil
}

// Exec plans a process that joins a container whose first one is first.
func Exec(first spec.Process, argv []string, terminal bool) (spec.Process, error) {
	if err := checkArgs("cmd", argv, func(i int) string { return item("cmd", i) }); err != nil {
		return spec.Process{}, err
	}
	p := first
	p.Args, p.Terminal = argv, terminal
	if terminal && !first.Terminal {
		env := newEnv(first.Env)
		env.preset("TERM", "xterm")
		p.Env = env.list
	}
	return p, nil
}

// arguments joins entry point and command as docker does: a command of the
// user's drops the image's command as well.
func arguments(cfg *criapi.ContainerConfig, image Image) ([]string, error) {
	command, args := cfg.Command, cfg.Args
	commandField, argsField := "config.command", "config.args"
	if len(command) == 0 {
		command, commandField = image.Entrypoint, "image config Entrypoint"
		if len(args) == 0 {
			args, argsField = image.Cmd, "image config Cmd"
		}
	}
	argv := append(append([]string(nil), command...), args...)
	return argv, checkArgs("config.command", argv, func(i int) string {
		if i < len(command) {
			return item(commandField, i)
		}
		return item(argsField, i-len(command))
	})
}

// maxArgument is MAX_ARG_STRLEN of execve(2), with the zero byte at the end.
const maxArgument = 128 << 10

// checkArgs checks a command line; field names the list, and from those of it.
func checkArgs(field string, argv []string, from func(int) string) error {
	if len(argv) == 0 {
		return invalid(field, "", "nothing to run: neither the request nor the image names a program")
	}
	if argv[0] == "" {
		return invalid(from(0), "", "the name of the program is empty")
	}
	for i, a := range argv {
		if strings.Contains(a, "\x00") {
			return invalid(from(i), a, "holds a zero byte")
		}
		if len(a) >= maxArgument {
			return invalid(from(i), a[:32]+"...", "is longer than the kernel's limit of %d bytes", maxArgument-1)
		}
	}
	return nil
}

func workingDir(asked, image string) (string, error) {
	field := "config.working_dir"
	if asked == "" {
		asked, field = image, "image config WorkingDir"
	}
	if strings.Contains(asked, "\x00") {
		return "", invalid(field, asked, "holds a zero byte")
	}
	return path.Join("/", asked), nil
}

// environment lets the image speak first, then the user and last the devices.
func environment(r Request, user passwd.User) ([]string, error) {
	env := newEnv(r.Image.Env)
	for i, kv := range r.Config.Envs {
		if kv.Key == "" || strings.ContainsAny(kv.Key, "=\x00") {
			return nil, invalid(at("config.envs", i, "key"), kv.Key, "is not the name of a variable")
		}
		if strings.Contains(string(kv.Value), "\x00") {
			return nil, invalid(at("config.envs", i, "value"), kv.Key, "holds a zero byte")
		}
		if len(kv.Key)+len(kv.Value)+1 >= maxArgument {
			return nil, invalid(at("config.envs", i, "value"), kv.Key, "is longer than the kernel's limit of %d bytes", maxArgument-1)
		}
		env.set(kv.Key, string(kv.Value))
	}
	for _, v := range r.CDI.Env {
		name, value, _ := strings.Cut(v, "=")
		env.set(name, value)
	}
	env.preset("PATH", strings.TrimPrefix(defaultPath, "PATH="))
	env.preset("HOSTNAME", Hostname(r.Pod, r.Facts))
	if r.Config.Tty {
		env.preset("TERM", "xterm")
	}
	env.preset("HOME", user.Home)
	return env.list, nil
}

// variables is an environment in order, each name once.
type variables struct {
	list  []string
	place map[string]int
}

// newEnv starts with list. What has no name, or is longer than the kernel takes,
// is of no use to a program and comes from an image: it is left out.
func newEnv(list []string) *variables {
	v := &variables{place: map[string]int{}}
	for _, entry := range list {
		name, value, found := strings.Cut(entry, "=")
		if found && name != "" && !strings.Contains(entry, "\x00") && len(entry) < maxArgument {
			v.set(name, value)
		}
	}
	return v
}

func (v *variables) set(name, value string) {
	if i, known := v.place[name]; known {
		v.list[i] = name + "=" + value
		return
	}
	v.place[name] = len(v.list)
	v.list = append(v.list, name+"="+value)
}

// preset sets what nobody has set.
func (v *variables) preset(name, value string) {
	if _, known := v.place[name]; !known {
		v.set(name, value)
	}
}

func resolveUser(r Request) (passwd.User, error) {
	s := r.Config.GetLinux().GetSecurityContext()
	policy := s.GetSupplementalGroupsPolicy()
	if _, known := criapi.SupplementalGroupsPolicy_name[int32(policy)]; !known {
		return passwd.User{}, invalid(securityField+"supplemental_groups_policy", policy, "is unknown")
	}
	ask := passwd.Request{
		RunAsUsername:      s.GetRunAsUsername(),
		ImageUser:          r.Image.User,
		SupplementalGroups: s.GetSupplementalGroups(),
		Strict:             policy == criapi.SupplementalGroupsPolicy_Strict,
	}
	if u := s.GetRunAsUser(); u != nil {
		ask.RunAsUser = &u.Value
	}
	if g := s.GetRunAsGroup(); g != nil {
		if ask.RunAsUser == nil && ask.RunAsUsername == "" {
			return passwd.User{}, invalid(securityField+"run_as_group", g.Value, "needs run_as_user or run_as_username")
		}
		ask.RunAsGroup = &g.Value
	}
	user, err := passwd.Resolve(ask, r.Passwd, r.Group)
	if wrong := (*passwd.Error)(nil); errors.As(err, &wrong) {
		return passwd.User{}, invalid(userField(wrong.Field), wrong.Value, "%s", wrong.Reason)
	}
	if err != nil {
		return passwd.User{}, &InvalidError{Reason: err.Error()}
	}
	return user, nil
}

// userField is the field of the request, or of the image, that a user was taken from.
func userField(field string) string {
	switch field {
	case "user":
		return "image config User"
	case "group":
		return "image config User: group"
	}
	return securityField + field
}
