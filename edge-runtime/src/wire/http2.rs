//! What each of our ends of HTTP/2 lets the other one have under way.

/// Bytes of one request or answer: room for a large tensor without waiting for round trips.
pub const STREAM_WINDOW: u32 = 4 << 20;
/// Bytes of all that is under way on one connection.
pub const CONNECTION_WINDOW: u32 = 16 << 20;
/// Requests of one connection, at the least: what a client asks beyond the limit waits with the client.
pub const STREAMS: u32 = 1024;
/// Frames for streams that are over, of one connection, before it is ended: an honest client sends few. h2's own default, which
/// tonic takes away.
pub const FAULTS: usize = 1024;
