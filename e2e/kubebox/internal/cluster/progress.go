package cluster

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// What the supervisor inherits from 'up', beside the standard files.
const (
	fdProgress = 3
	fdAPI      = 4
	fdRegistry = 5
)

// message is one line on the pipe from the supervisor to 'up'.
type message struct {
	Step  string `json:",omitempty"`
	Ready bool   `json:",omitempty"`
	Error string `json:",omitempty"`
	Log   string `json:",omitempty"` // the last lines of the log that most likely says why
}

// progress tells 'up' how far the start is. Nobody may be listening any more: errors are of no interest.
type progress struct{ pipe *os.File }

func inheritProgress() *progress {
	for _, fd := range []int{fdProgress, fdAPI, fdRegistry} {
		syscall.CloseOnExec(fd) // the inits must not hold them
	}
	return &progress{os.NewFile(fdProgress, "progress")}
}

func (p *progress) send(m message) { json.NewEncoder(p.pipe).Encode(m) }

func (p *progress) say(format string, args ...any) {
	p.send(message{Step: fmt.Sprintf(format, args...)})
}

func (p *progress) ready() {
	p.send(message{Ready: true})
	p.pipe.Close()
}

func (p *progress) fail(err error) {
	m := message{Error: err.Error()}
	if e, ok := err.(*stalled); ok {
		m.Log = tail(e.log, 15)
	}
	p.send(m)
}

func inherited(fd int) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("inherited listener %d: %w; 'kubebox supervise' is for 'kubebox up' alone", fd, err)
	}
	return l, nil
}

// report keeps, outside the folder that is about to go, why the start failed and the end of every log.
func (s *supervision) report(cause error) {
	f, err := os.Create(s.ReportPath())
	if err != nil {
		return
	}
	defer f.Close()
	logs, _ := filepath.Glob(s.path("nodes", "*", "*.log"))
	more, _ := filepath.Glob(s.path(cp, "*.log"))
	for _, log := range append(logs, more...) {
		fmt.Fprintf(f, "==> %s\n%s\n", strings.TrimPrefix(log, s.Dir+"/"), tail(log, 60))
	}
	fmt.Fprintf(f, "==> %v\n", cause)
}

// tail is the last lines of a file.
func tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const enough = 256 << 10
	if info, err := f.Stat(); err == nil && info.Size() > enough {
		f.Seek(-enough, io.SeekEnd)
	}
	var last []string
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, enough)
	for scanner.Scan() {
		if last = append(last, scanner.Text()); len(last) > lines {
			last = last[1:]
		}
	}
	return strings.Join(last, "\n")
}
