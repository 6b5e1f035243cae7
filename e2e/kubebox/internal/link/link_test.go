package link

import (
	"testing"
	"time"
)

func TestOverrideReadsEachSetting(t *testing.T) {
	base := Shape{Delay: 20 * time.Millisecond, Rate: 50e6}
	for _, c := range []struct {
		name                      string
		delay, jitter, loss, rate string
		want                      Shape
	}{
		{"nothing given keeps the base", "", "", "", "", base},
		{"loss alone keeps delay and rate", "", "", "1%", "", Shape{Delay: 20 * time.Millisecond, Loss: 0.01, Rate: 50e6}},
		{"zero clears", "0s", "", "0", "0", Shape{}},
		{"all", "100ms", "2ms", "0.5%", "8Mbit", Shape{Delay: 100 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.005, Rate: 8e6}},
		{"unit in any case", "", "", "", "1.5gbit", Shape{Delay: 20 * time.Millisecond, Rate: 15e8}},
	} {
		got, err := base.Override(c.delay, c.jitter, c.loss, c.rate)
		if err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
}

func TestOverrideRefusesWhatIsNoSetting(t *testing.T) {
	for _, c := range [][4]string{
		{"20", "", "", ""}, {"-1ms", "", "", ""}, {"20m", "", "", ""}, {"", "x", "", ""},
		{"", "", "1", ""}, {"", "", "101%", ""}, {"", "", "", "50"}, {"", "", "", "50Mbyte"}, {"", "", "", "Mbit"},
	} {
		if got, err := (Shape{}).Override(c[0], c[1], c[2], c[3]); err == nil {
			t.Errorf("%q became %+v", c, got)
		}
	}
}

func TestRateSpacesFramesAndBoundsTheQueue(t *testing.T) {
	s := Shape{Delay: 20 * time.Millisecond, Rate: 12e6} // 1,500 bytes take 1 ms
	now := time.Unix(0, 0)
	var p pacer
	passed := 0
	for range 1000 {
		due, ok := p.due(now, 1500, s, 0)
		if !ok {
			break
		}
		passed++
		if want := now.Add(s.Delay + time.Duration(passed)*time.Millisecond); due != want {
			t.Fatalf("frame %d is due %v, want %v", passed, due, want)
		}
	}
	if want := int(maxBacklog/time.Millisecond) + 1; passed != want {
		t.Errorf("%d frames queued, want %d", passed, want)
	}
}

func TestJitterNeverReorders(t *testing.T) {
	s := Shape{Delay: 5 * time.Millisecond, Jitter: 10 * time.Millisecond}
	var p pacer
	var last time.Time
	for i, chance := range []float64{0.9, 0.1, 0.5, 0, 1} {
		due, _ := p.due(time.Unix(0, int64(i)), 100, s, chance)
		if due.Before(last) {
			t.Fatalf("frame %d arrives before the one ahead of it", i)
		}
		last = due
	}
}
