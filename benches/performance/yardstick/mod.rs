//! A minimal fan-out server, which serves as the physical limit that Rapport is compared with.
//!
//! It has one thread and one epoll set. A message is framed once, and the same bytes are written to
//! every member, with one write for everything queued. It supports just enough of the protocol to
//! be measured: join, heartbeat, and binary broadcasts. It has no checks, no limits and no
//! authentication.

mod connection;
mod message;
mod room;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use connection::Connection;
use room::Rooms;

const LISTENER: Token = Token(usize::MAX);

/// Buffer size of one read: more than clients send at once.
const READ_BYTES: usize = 1 << 18;

/// Serves forever on a free port of the loopback interface. Prints the port.
pub(crate) fn serve() -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;

    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut rooms = Rooms::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    poll.registry().register(
                        &mut stream,
                        Token(connections.len()),
                        Interest::READABLE | Interest::WRITABLE,
                    )?;
                    connections.push(Some(Connection::new(stream)));
                }
                continue;
            }
            let Token(id) = event.token();
            let Some(connection) = &mut connections[id] else {
                continue;
            };
            if event.is_writable() {
                connection.flush();
            }
            if event.is_readable() && !connection.read(id, &mut rooms, &mut buffer) {
                rooms.leave(id, connection.room);
                connections[id] = None;
            }
        }
        rooms.flush(&mut connections);
    }
}
