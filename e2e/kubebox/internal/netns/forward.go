package netns

import (
	"io"
	"net"
	"time"
)

// Forward serves a listener of this namespace with addr in pid's, until the listener is closed. It is how the cluster
// is reached without any address, route or rule of it in the machine's own namespace.
func Forward(l net.Listener, pid int, addr string) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer near.Close()
			far, err := dial(pid, addr)
			if err != nil {
				return // not up yet, or gone: the caller sees a closed connection
			}
			defer far.Close()
			join(near, far)
		}()
	}
}

func dial(pid int, addr string) (conn net.Conn, err error) {
	err = Do(pid, func() (e error) {
		conn, e = net.DialTimeout("tcp", addr, 5*time.Second)
		return e
	})
	return conn, err
}

// join copies both ways and passes half-closes on, which streams such as exec with input rely on.
func join(a, b net.Conn) {
	done := make(chan struct{})
	go func() {
		copyAndClose(a, b)
		close(done)
	}()
	copyAndClose(b, a)
	<-done
}

func copyAndClose(dst, src net.Conn) {
	io.Copy(dst, src)
	if tcp, ok := dst.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
}
