package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/cri"
	"cri-mini/cri/stream"
	"cri-mini/image"
	"cri-mini/internal/config"
	"cri-mini/internal/fdstore"
	"cri-mini/internal/hostpath"
	"cri-mini/internal/socket"
	"cri-mini/internal/undo"
	"cri-mini/podsandbox"
	"cri-mini/podsandbox/history"
	"cri-mini/podsandbox/network"
	"cri-mini/runtime/cgroup/systemd"
	"cri-mini/runtime/executor"
)

// daemon is the parts of a running daemon, in the order they are opened.
type daemon struct {
	config.Config
	endpoint config.Endpoint
	private  string // see serveCmd

	log      *slog.Logger
	images   *image.Store
	store    *fdstore.Store // nil where nobody keeps descriptors for us
	kept     map[string]fdstore.Bundle
	executor *executor.Executor
	systemd  *systemd.Manager // nil with the driver cgroupfs
	network  *network.Network
	history  *history.History
	pods     *podsandbox.Pods
	sockets  struct {
		cri, admin net.Listener
		streams    *stream.Server
	}
	stopCRI  func()
	failures chan error // of the servers

	wish    chan struct{} // a client wants the end
	opened  undo.Stack    // closes what was opened, last first
	cleared bool          // pods, network and monitor are gone

	clearing     sync.Mutex // held by clear, guards what follows
	clearedSteps int
}

func (d *daemon) close() { d.opened.Run() }

// endPatience is more than all steps of an end take that have a limit of their
// own.
const endPatience = 40 * time.Second

// closeInTime ends the process also when something hangs, such as a call of the
// kernel on a file system that is dead. Our successor finds everything out again;
// a daemon that does not go away keeps it from starting.
func (d *daemon) closeInTime() {
	defer d.limitEnd(endPatience, os.Exit)()
	d.close()
}

func (d *daemon) limitEnd(patience time.Duration, exit func(int)) (ended func()) {
	late := time.AfterFunc(patience, func() {
		var calls []string
		if d.pods != nil {
			calls = d.pods.AtWork()
		}
		slog.Error("the end takes too long, leaving without it", "after", patience, "calls", calls, "silent paths", hostpath.Silent())
		exit(1)
	})
	return func() { late.Stop() }
}

func (d *daemon) openLog(context.Context) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(d.LogLevel)); err != nil {
		return err
	}
	d.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(d.log)
	return nil
}

// openStore takes what earlier daemons have given to the service manager.
func (d *daemon) openStore(context.Context) error {
	if d.private != "" {
		return nil // no service, though one may have started us
	}
	d.store, d.kept = fdstore.FromEnvironment(d.log)
	d.opened.Add(d.store.Close)
	return nil
}

// openStreams comes first: whether the machine has this address and takes this
// certificate shows only here, and a daemon that is refused has made nothing.
func (d *daemon) openStreams(context.Context) (err error) {
	if d.sockets.streams, err = stream.Listen(stream.Config{
		Address: d.StreamAddress, Host: d.StreamHost, Certificate: d.StreamCertificate, Key: d.StreamKey, Plain: d.StreamPlain,
	}); err != nil {
		return err
	}
	d.opened.Add(d.sockets.streams.Close)
	return nil
}

// openLocks keeps a second daemon away from our folders. The locks end with
// the process, however it dies.
func (d *daemon) openLocks(context.Context) error {
	d.log.Info("cri-mini starts", "version", version, "root", d.Root, "state", d.State, "listen", d.endpoint.Listen)
	if d.private != "" {
		d.opened.Add(func() error {
			if !d.cleared {
				return nil // the log in it says why
			}
			return os.RemoveAll(d.private)
		})
	}
	d.opened.Add(func() error {
		if !d.cleared {
			return nil
		}
		return os.RemoveAll(d.State)
	})
	for _, dir := range []string{d.Root, d.State} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		d.opened.Add(lock.Close)
		err = lockSoon(lock)
		if err == unix.EWOULDBLOCK {
			return fmt.Errorf("%s belongs to another running daemon", dir)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", lock.Name(), err)
		}
	}
	return nil
}

// lockPatience is how long a dead daemon may seem to have a lock: a process
// that it was just starting has all its files until it executes its program.
const lockPatience = 2 * time.Second

func lockSoon(f *os.File) error {
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK || time.Since(began) > lockPatience {
			return err
		}
	}
}

// openSockets comes before anything that would have to be taken back when a
// socket is in use. Whoever connects waits until we are ready.
func (d *daemon) openSockets(context.Context) (err error) {
	if d.sockets.cri, err = socket.Listen(d.endpoint.Path()); err != nil {
		return err
	}
	d.opened.Add(d.sockets.cri.Close)
	if d.sockets.admin, err = socket.Listen(d.endpoint.AdminPath()); err != nil {
		return err
	}
	d.opened.Add(d.sockets.admin.Close)
	return nil
}

func (d *daemon) openImages(context.Context) (err error) {
	d.images, err = image.Open(filepath.Join(d.Root, "images"), image.Options{
		RegistryConfigDir: d.RegistryConfigDir,
		LayerForm:         d.LayerForm,
		UserAgent:         "cri-mini/" + version,
		Logger:            d.log,
	})
	if err != nil {
		return err
	}
	d.opened.Add(d.images.Close)
	return nil
}

func (d *daemon) openExecutor(ctx context.Context) (err error) {
	if d.executor, err = executor.Open(ctx, executor.Options{State: d.State, Logger: d.log, Systemd: d.systemd, Store: d.store, Kept: d.kept}); err != nil {
		return err
	}
	d.opened.Add(func() error {
		if d.cleared {
			return nil
		}
		return d.executor.Close()
	})
	return nil
}

// upgradeMonitor does not keep a daemon from starting: one of another build
// works as well.
func (d *daemon) upgradeMonitor(ctx context.Context) error {
	if err := d.executor.UpgradeMonitor(ctx); err != nil {
		d.log.Warn("the monitor stays one of another build until the next start", "pid", d.executor.MonitorPID(), "err", err)
	}
	return nil
}

func (d *daemon) openNetwork(context.Context) (err error) {
	options, err := networkOptions(d.Config)
	if err != nil {
		return err
	}
	options.Logger = d.log
	if d.network, err = network.Open(options); err != nil {
		return err
	}
	d.opened.Add(d.network.Close)
	return nil
}

func networkOptions(c config.Config) (network.Options, error) {
	cluster, err := c.ClusterRanges()
	return network.Options{
		Mode:     c.Network,
		ConfDir:  c.CNIConfDir,
		BinDir:   c.CNIBinDir,
		StateDir: filepath.Join(c.Root, "network"),
		Instance: c.Root,
		PodCIDR:  c.PodCIDR,
		Cluster:  cluster,
		IPv6:     true,
	}, err
}

// openHistory goes on with what earlier daemons of this boot have seen.
// That it cannot be read or written keeps no daemon from starting.
func (d *daemon) openHistory(context.Context) error {
	d.history = history.Open(d.historyFile(), d.log)
	d.opened.Add(d.history.Close)
	return nil
}

func (d *daemon) historyFile() string { return filepath.Join(d.State, "history") }

func (d *daemon) openPods(ctx context.Context) (err error) {
	d.pods, err = podsandbox.Open(ctx, podsandbox.Options{
		Root:         d.Root,
		Executor:     d.executor,
		Images:       d.images,
		Network:      d.network,
		History:      d.history,
		Logger:       d.log,
		CgroupParent: d.cgroupParent(),

		SystemdCgroups: d.systemd != nil,

		OpenFiles:  d.OpenFiles,
		CDIFolders: d.CDIFolders(),
	})
	if err != nil {
		return err
	}
	d.opened.Add(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		return d.pods.Close(ctx)
	})
	// What nobody holds by now, nobody needs. Not later: it would take the
	// files of a pull at work for leftovers.
	if err := d.images.Collect(); err != nil {
		d.log.Warn("leftovers of images not removed", "err", err)
	}
	return nil
}

// closePatience is how long running calls may take to end.
const closePatience = 10 * time.Second

func (d *daemon) announce() {
	d.log.Info("cri-mini is ready", "streams", d.sockets.streams.Address(), "layers", d.images.Form(), "monitor", d.executor.MonitorPID())
	if err := notify("READY=1"); err != nil {
		d.log.Warn("service manager not told", "err", err)
	}
}

// waitForEnd returns when a signal, a client, the end of stdin or a broken
// server ends the daemon.
func (d *daemon) waitForEnd(ctx context.Context) error {
	stdin := make(chan struct{})
	if d.private != "" {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			close(stdin)
		}()
	}
	select {
	case <-ctx.Done():
		d.log.Info("told to end; pods go on")
	case <-d.wish:
		d.log.Info("asked to end")
	case <-stdin:
		return d.clearAtLast()
	case err := <-d.failures:
		return err
	}
	if d.private != "" && !d.cleared {
		return d.clearAtLast()
	}
	return nil
}

var semantic = regexp.MustCompile(`^v?([0-9]+\.[0-9]+\.[0-9]+([-+].*)?)$`)

// node is what the kubelet is told of us.
func (d *daemon) node() cri.Node {
	n := cri.Node{
		Version:      "0.0.0+" + version,
		Root:         d.Root,
		State:        d.State,
		CgroupDriver: d.cgroupDriver(),
		Handlers: []*criapi.RuntimeHandler{{Features: &criapi.RuntimeHandlerFeatures{
			RecursiveReadOnlyMounts: true,
			UserNamespaces:          true,
		}}},
		Features: &criapi.RuntimeFeatures{SupplementalGroupsPolicy: true, MountOptions: true},
		Probed:   probe(d.Root),
	}
	if err := d.executor.MapsIDs(d.Root); err != nil {
		d.log.Warn("pods cannot have users of their own", "err", err)
		n.Handlers[0].Features.UserNamespaces = false
	}
	if m := semantic.FindStringSubmatch(version); m != nil {
		n.Version = m[1] // the kubelet reads it as semantic versioning
	}
	return n
}
