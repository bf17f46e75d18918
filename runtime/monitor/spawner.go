package monitor

import (
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/internal/timerslack"
	"cri-mini/runtime/spawn"
)

// spawnLimit is how long a new process may take until its execve; one that
// hangs longer, on a dead server or stopped from inside, is killed.
const spawnLimit = 30 * time.Second

// birthLimit is how long an answer waits for spawns that began before it: most
// take milliseconds, and one that hangs must not keep a daemon from starting.
const birthLimit = 2 * time.Second

// idleSpawners is how many threads wait when nothing is to be done.
const idleSpawners = 2

// spawners are threads in the seed namespace. Each runs one spawn at a time;
// when all are busy there is one more.
type spawners struct {
	jobs chan *job
	done event
	idle int
	busy map[*job]bool
	late []*waiting

	mu       sync.Mutex // guards finished
	finished []*job
}

// job is one spawn on its way through a thread and back to the loop.
type job struct {
	spawn  *spawn.Spawn
	image  *spawn.Image
	cgroup int
	proc   int
	asked  *conn // by whom
	since  time.Time
	result spawn.Result
	then   func(spawn.Result) // called by the loop
}

func newSpawners() (*spawners, error) {
	done, err := newEvent()
	s := &spawners{jobs: make(chan *job), done: done, busy: map[*job]bool{}}
	for range idleSpawners {
		s.start()
	}
	return s, err
}

// run is done by a thread.
func (j *job) run() spawn.Result {
	result := j.spawn.Run(j.image, j.cgroup)
	if result.Failed == -1 && !spawn.Executed(j.proc, result.PID) {
		unix.Wait4(result.PID, nil, 0, nil) // it ends
		result.Failed = spawn.Killed
	}
	return result
}

// waiting is work that is done after some spawns have ended.
type waiting struct {
	jobs  map[*job]bool
	since time.Time
	then  func() // called by the loop
}

func (s *spawners) running() int { return len(s.busy) }

// after calls then when jobs have ended, or birthLimit has passed.
func (s *spawners) after(jobs map[*job]bool, then func()) {
	if len(jobs) == 0 {
		then()
		return
	}
	s.late = append(s.late, &waiting{jobs: jobs, since: time.Now(), then: then})
}

// catchUp does what no longer has to wait.
func (s *spawners) catchUp(now time.Time) {
	s.late = slices.DeleteFunc(s.late, func(w *waiting) bool {
		for j := range w.jobs {
			if !s.busy[j] {
				delete(w.jobs, j)
			}
		}
		over := len(w.jobs) == 0 || now.Sub(w.since) >= birthLimit
		if over {
			w.then()
		}
		return over
	})
}

// run hands a job to a thread.
func (s *spawners) run(j *job) {
	j.since = time.Now()
	s.busy[j] = true
	if s.idle == 0 {
		s.start()
	}
	s.idle--
	s.jobs <- j
}

// start adds a thread, which never leaves the seed again.
func (s *spawners) start() {
	s.idle++
	go func() {
		runtime.LockOSThread()
		if err := spawn.EnterSeed(); err != nil {
			say("enter the seed namespace: ", err.Error())
			unix.Exit(1)
		}
		if err := timerslack.Usual(); err != nil { // a program inherits it
			say("reset the timer slack: ", err.Error())
		}
		for j := range s.jobs {
			crashpoint.Here("monitor.before-clone")
			j.result = j.run()
			crashpoint.Here("monitor.cloned")
			s.mu.Lock()
			s.finished = append(s.finished, j)
			s.mu.Unlock()
			s.done.set()
		}
	}()
}

// ready hands the results of finished jobs to those who wait for them.
func (s *spawners) ready(_ *Monitor, _ uint32) {
	s.done.clear()
	s.mu.Lock()
	finished := s.finished
	s.finished = nil
	s.mu.Unlock()
	for _, j := range finished {
		delete(s.busy, j)
		s.idle++
		j.spawn.Close()
		j.then(j.result)
	}
	s.catchUp(time.Now())
}

func (s *spawners) abandonOld(now time.Time) {
	for j := range s.busy {
		if now.Sub(j.since) > spawnLimit {
			say("a new process took too long until its execve; killed")
			j.spawn.Abandon()
		}
	}
}

// event wakes the loop from another thread.
type event struct{ fd int }

func newEvent() (event, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return event{fd}, err
}

func (e event) set() {
	unix.Write(e.fd, binary.NativeEndian.AppendUint64(nil, 1))
}

func (e event) clear() {
	unix.Read(e.fd, make([]byte, 8))
}
