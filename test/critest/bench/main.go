// Command bench measures the life of pods, beside the same kernel operations
// issued bare and beside other runtimes.
//
// It starts daemons in an enclosure, each in a place of its own, so no other
// pods, addresses or rules of the machine are in the way, and talks CRI to all
// as a kubelet would, in turns. It prints tables in Markdown, and writes them as
// JSON for a later run to compare with.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cri-mini/test/critest/internal/enclosure"
	"cri-mini/test/critest/internal/testimage"
)

type options struct {
	daemon string
	before string
	peers  string
	output string
	parts  string
	pods   int
	idle   int
	crowd  int

	repository string
}

func main() {
	var o options
	flag.StringVar(&o.daemon, "daemon", "", "`program` to measure (default: bin/cri-mini of the repository)")
	flag.StringVar(&o.before, "before", "", "another `program` of ours, whose pods take turns with those of -daemon (default: none)")
	flag.StringVar(&o.peers, "peers", "", "`folder` of the programs to compare with, as hack/peers makes it (default: compare with none)")
	flag.StringVar(&o.output, "output", "", "`directory` for logs and results (default: .cache/bench)")
	flag.StringVar(&o.parts, "parts", "lives,rates,idle,pull,scale", "what to measure; also crowded: lives beside the pods of a crowd; and check: holds two ratios")
	flag.IntVar(&o.pods, "pods", 200, "pods one after the other")
	flag.IntVar(&o.idle, "idle", 100, "idle pods, for memory and mounts")
	flag.IntVar(&o.crowd, "crowd", 500, "pods that stay, for how things grow")
	flag.Parse()

	status, err := 1, o.fill()
	if err == nil {
		status, err = enclosure.Main(o.build, o.inside)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		status = 1
	}
	os.Exit(status)
}

func (o *options) fill() (err error) {
	if o.repository, err = testimage.Repository(); err != nil {
		return err
	}
	for option, value := range map[*string]string{&o.daemon: "bin/cri-mini", &o.output: ".cache/bench"} {
		if *option == "" {
			*option = filepath.Join(o.repository, value)
		}
		if *option, err = filepath.Abs(*option); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) build() error {
	if _, err := os.Stat(o.daemon); err != nil {
		return fmt.Errorf("daemon: %w (make build makes it)", err)
	}
	if _, err := testimage.BuildPrograms(o.repository); err != nil {
		return err
	}
	return os.MkdirAll(o.output, 0o755)
}

// inside measures and prints.
func (o *options) inside(work string) (status int, err error) {
	images, err := o.images()
	if err != nil {
		return 1, err
	}
	b, err := newBare(filepath.Join(work, "bare"), testimage.Built(o.repository).Busybox)
	if err != nil {
		return 1, err
	}
	all, err := o.subjects(work, images)
	if err != nil {
		return 1, err
	}
	defer func() {
		if closeErr := closeAll(all); err == nil && closeErr != nil {
			status, err = 1, closeErr
		}
	}()
	t := newTable()
	for part := range strings.SplitSeq(o.parts, ",") {
		fmt.Printf("%s %s\n", time.Now().Format(time.TimeOnly), part)
		if err := o.measure(part, t, b, all); err != nil {
			t.print(os.Stdout) // minutes of work
			return 1, fmt.Errorf("%s: %w", part, err)
		}
	}
	fmt.Println(machine())
	t.print(os.Stdout)
	return 0, o.save(t)
}

func (o *options) images() (*testimage.Set, error) {
	images, err := testimage.BuildAll(o.repository)
	if err != nil {
		return nil, err
	}
	busybox, err := testimage.BusyboxLayer(testimage.Built(o.repository).Busybox)
	if err != nil {
		return nil, err
	}
	if strings.Contains(o.parts, "pull") {
		if err := addBig(images); err != nil {
			return nil, err
		}
	}
	pause := testimage.Config{Entrypoint: []string{"/bin/sleep", "2147483647"}}
	return images, images.Add(filepath.Base(pauseImage), pause, busybox)
}

func (o *options) measure(part string, t *table, b *bare, all []*subject) error {
	switch part {
	case "lives":
		return lives(t, b, all, o.pods)
	case "rates":
		for _, jobs := range []int{1, 4, 16} {
			if err := rates(t, all, jobs); err != nil {
				return err
			}
		}
		return nil
	case "pull":
		return pulls(t, all)
	case "crowded":
		return crowded(t, b, all, o.crowd, o.pods)
	case "scale":
		return o.scale(t, all)
	case "check":
		return check(t, b, all[0])
	case "idle":
		return idle(t, all, o.idle)
	default:
		return fmt.Errorf("there is no such part")
	}
}

func (o *options) save(t *table) error {
	text, err := json.MarshalIndent(struct {
		When    time.Time
		Machine string
		Results []row
		Numbers []number
	}{time.Now().UTC(), machine(), t.rows(), t.numbers}, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(o.output, "result.json")
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Println("written to", path)
	return nil
}

// machine tells what the numbers are of, and how busy it is.
func machine() string {
	text := func(path string) string {
		content, err := os.ReadFile(path)
		if err != nil {
			return path + " unknown"
		}
		return strings.TrimSpace(string(content))
	}
	var cpu string
	processors := 0
	for line := range strings.Lines(text("/proc/cpuinfo")) {
		if name, ok := strings.CutPrefix(line, "model name\t: "); ok {
			cpu = strings.TrimSpace(name)
			processors++
		}
	}
	return fmt.Sprintf("%s; %d processors, %s; Linux %s; load %s", time.Now().UTC().Format(time.DateTime), processors, cpu, text("/proc/sys/kernel/osrelease"), text("/proc/loadavg"))
}
