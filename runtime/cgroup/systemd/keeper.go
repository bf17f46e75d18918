package systemd

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// keeper is a process that does nothing. It belongs to nobody: it outlives us,
// and ends when somebody kills its scope.
type keeper struct {
	pid   int
	ended chan struct{}
	pipe  *os.File // its standard input
}

// stay lets it wait for ever, which it does not do for a daemon that died.
func (k *keeper) stay() error {
	_, err := k.pipe.Write([]byte{1})
	k.pipe.Close()
	return err
}

// end ends one that was not told to stay.
func (k *keeper) end() error {
	k.pipe.Close()
	<-k.ended
	return nil
}

// program is the file of keepers, in memory: our own would be a hundred times
// what each of them takes.
type program struct {
	mu   sync.Mutex // guards file
	file *os.File
}

func (p *program) open() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil {
		return p.file, nil
	}
	fd, err := unix.MemfdCreate("cri-mini-keeper", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "cri-mini-keeper")
	_, err = f.Write(executable())
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err == nil {
		// One that is open for writing cannot be executed.
		p.file, err = os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	}
	f.Close()
	return p.file, err
}

func (p *program) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil {
		p.file.Close()
		p.file = nil
	}
}

func (p *program) start() (*keeper, error) {
	file, err := p.open()
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	// Handed over, for between fork and execve Go puts a pipe of its own into the
	// place behind all that it hands over, and the file could be there.
	command := exec.Command("/proc/self/fd/3")
	command.ExtraFiles = []*os.File{file}
	command.Args, command.Env, command.Dir = []string{"cri-mini: keeper"}, []string{}, "/"
	command.Stdin = read
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		write.Close()
		return nil, err
	}
	k := &keeper{pid: command.Process.Pid, ended: make(chan struct{}), pipe: write}
	go func() {
		command.Wait() // however it ends
		close(k.ended)
	}()
	return k, nil
}

// executable is the smallest ELF file: one segment of headers and code, mapped to
// read and execute. The code is
//
//	if read(0, stack, 1) != 1 { exit_group(0) }
//	for { pause() }
func executable() []byte {
	const address, headers = 0x400000, 64 + 56
	size := uint64(headers + len(code))
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	for _, field := range []any{
		uint16(2), uint16(machine), uint32(1), // an executable, of version 1
		uint64(address + headers), uint64(64), uint64(0), // entry, program headers, no sections
		uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), // load; read and execute
		uint64(0), uint64(address), uint64(address), size, size, uint64(0x10000),
	} {
		binary.Write(&b, binary.LittleEndian, field)
	}
	b.Write(code)
	return b.Bytes()
}
