package netns

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenTap makes a tap device in the network namespace of pid. It lives as long as the file is open, and the open file
// keeps that namespace: close it when the node ends.
func OpenTap(pid int, name string) (*os.File, error) {
	var tap *os.File
	err := Do(pid, func() error {
		// Non-blocking, so that the runtime's poller owns it and Close wakes a reader.
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("make tap %s: %w", name, err)
		}
		tap = os.NewFile(uintptr(fd), name)
		return nil
	})
	return tap, err
}
