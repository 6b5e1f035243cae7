//! What each of our ends of HTTP/2 lets the other one have under way.

use std::time::Duration;
use tonic::transport::Server;

/// Bytes of one request or answer: room for a large tensor without waiting for round trips.
pub const STREAM_WINDOW: u32 = 4 << 20;
/// Bytes of all that is under way on one connection.
pub const CONNECTION_WINDOW: u32 = 16 << 20;
/// Requests of one connection, at the least: what a client asks beyond the limit waits with the client.
pub const STREAMS: u32 = 1024;
/// Frames for streams that are over, of one connection, before it is ended: an honest client sends few. h2's own default, which
/// tonic takes away.
const FAULTS: usize = 1024;
/// Between two questions whether a silent client is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A server whose clients may have so many requests under way on one connection.
pub fn server(streams: u32) -> Server {
    Server::builder()
        .max_concurrent_streams(streams)
        .http2_max_local_error_reset_streams(Some(FAULTS))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
}
