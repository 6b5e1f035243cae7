// Package link is the cable between a node and the cluster's bridge, with delay, jitter, loss and rate.
package link

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Shape is what a link does to frames, the same in each direction.
type Shape struct {
	Delay  time.Duration // one way
	Jitter time.Duration // uniform, added to Delay; order is kept
	Loss   float64       // share of frames, 0..1
	Rate   int64         // bits per second; 0 is no cap
	Down   bool          // cut: nothing passes
}

// Override applies the settings that are given as text ("" leaves a value as it is).
func (s Shape) Override(delay, jitter, loss, rate string) (Shape, error) {
	var err error
	set := func(name, text string, parse func(string) error) {
		if err != nil || text == "" {
			return
		}
		if e := parse(text); e != nil {
			err = fmt.Errorf("%s: %w", name, e)
		}
	}
	set("delay", delay, func(t string) (e error) { s.Delay, e = parseDelay(t); return e })
	set("jitter", jitter, func(t string) (e error) { s.Jitter, e = parseDelay(t); return e })
	set("loss", loss, func(t string) (e error) { s.Loss, e = parseLoss(t); return e })
	set("rate", rate, func(t string) (e error) { s.Rate, e = parseRate(t); return e })
	return s, err
}

func (s Shape) String() string {
	if s.Down {
		return "down"
	}
	text := fmt.Sprintf("delay %v", s.Delay)
	if s.Jitter > 0 {
		text += fmt.Sprintf(", jitter %v", s.Jitter)
	}
	if s.Loss > 0 {
		text += fmt.Sprintf(", loss %g%%", s.Loss*100)
	}
	if s.Rate > 0 {
		text += fmt.Sprintf(", rate %g Mbit/s", float64(s.Rate)/1e6)
	}
	return text
}

// maxDelay keeps a typing error ("20m" for "20ms") from looking like a dead link.
const maxDelay = 10 * time.Second

func parseDelay(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxDelay {
		return 0, fmt.Errorf("%q is not a time between 0 and %v such as 20ms", text, maxDelay)
	}
	return d, nil
}

func parseLoss(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || v < 0 || v > 100 || (!percent && v != 0) {
		return 0, fmt.Errorf("%q is not a share such as 1%%", text)
	}
	return v / 100, nil
}

// parseRate reads a rate as tc writes it: bit, kbit, Mbit or Gbit per second.
func parseRate(text string) (int64, error) {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	units := map[string]float64{"bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
	unit, known := units[strings.ToLower(text[len(number):])]
	v, err := strconv.ParseFloat(number, 64)
	if err == nil && v == 0 {
		return 0, nil
	}
	if err != nil || !known || v < 0 || v*unit < 1 || v*unit > 1e12 {
		return 0, fmt.Errorf("%q is not a rate such as 50Mbit (bit, kbit, Mbit or Gbit per second)", text)
	}
	return int64(v * unit), nil
}
