package link

import (
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

const (
	// maxBacklog is how long a frame may wait for a capped wire before it is dropped, as a router's queue would.
	maxBacklog = 250 * time.Millisecond
	// maxFrames bounds what is in flight each way: 100 ms at the fastest rate that two taps reach, with room.
	maxFrames = 16384
	// maxFrame is the largest frame that a tap hands over.
	maxFrame = 64 << 10
)

// Line joins two taps. Frames pass through this process because many kernels come without netem; it delays in user
// space what netem would delay in the kernel, first in, first out.
type Line struct {
	ends [2]*os.File

	mu    sync.Mutex
	shape Shape
}

// Join starts to copy frames between the two taps, and owns them from now on.
func Join(a, b *os.File, s Shape) *Line {
	l := &Line{ends: [2]*os.File{a, b}, shape: s}
	go l.pump(a, b)
	go l.pump(b, a)
	return l
}

// Set changes the shape for the frames that enter from now on; Down also drops what is in flight.
func (l *Line) Set(s Shape) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shape = s
}

func (l *Line) current() Shape {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shape
}

// Close ends both taps, which also lets the kernel drop the namespaces that they were opened in.
func (l *Line) Close() {
	l.ends[0].Close()
	l.ends[1].Close()
}

type frame struct {
	due  time.Time
	data []byte
}

func (l *Line) pump(src, dst *os.File) {
	flight := make(chan frame, maxFrames)
	defer close(flight)
	go l.deliver(flight, dst)

	buf := make([]byte, maxFrame)
	var pace pacer
	for {
		n, err := src.Read(buf)
		if err != nil {
			return // closed
		}
		s := l.current()
		if s.Down || (s.Loss > 0 && rand.Float64() < s.Loss) {
			continue
		}
		due, ok := pace.due(time.Now(), n, s, rand.Float64())
		if !ok {
			continue
		}
		select {
		case flight <- frame{due, append([]byte(nil), buf[:n]...)}:
		default: // full: drop, as a real queue does
		}
	}
}

func (l *Line) deliver(flight <-chan frame, dst *os.File) {
	for f := range flight {
		if wait := time.Until(f.due); wait > 0 {
			time.Sleep(wait)
		}
		if l.current().Down {
			continue
		}
		dst.Write(f.data) // an error means closed; the reader on that side ends the pump
	}
}

// pacer computes when a frame arrives at the far end. Pure: time and chance are arguments.
type pacer struct {
	free time.Time // when the capped wire has sent what it took so far
	last time.Time // the previous arrival: none may be earlier, or TCP would see reordering
}

// due is the arrival of a frame of size bytes; false if the queue before the capped wire is full.
func (p *pacer) due(now time.Time, size int, s Shape, chance float64) (time.Time, bool) {
	at := now
	if s.Rate > 0 {
		if p.free.Before(now) {
			p.free = now
		}
		if p.free.Sub(now) > maxBacklog {
			return time.Time{}, false
		}
		p.free = p.free.Add(time.Duration(float64(size) * 8 / float64(s.Rate) * float64(time.Second)))
		at = p.free
	}
	at = at.Add(s.Delay + time.Duration(chance*float64(s.Jitter)))
	if at.Before(p.last) {
		at = p.last
	}
	p.last = at
	return at, true
}
