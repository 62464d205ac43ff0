//! A TCP proxy that can cut, pause, refuse and rewrite connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rapport::shutdown::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long bytes are held back if they may be the beginning of a text to rewrite.
const HOLD: Duration = Duration::from_millis(20);

/// The direction in which bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client of the proxy.
    ToServer,
    /// From the server behind the proxy.
    ToClient,
}

/// The proxy. When it is dropped, it stops and cuts all connections.
pub(crate) struct ChaosProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Tasks,
}

struct Shared {
    target: SocketAddr,
    is_refusing: AtomicBool,
    is_paused: watch::Sender<bool>,
    /// Incrementing this number cuts all current connections.
    cuts: watch::Sender<u64>,
    /// Number of bytes that may still be sent to clients before the next cut.
    allowance: Mutex<Option<usize>>,
    rewrites: Mutex<Vec<Rewrite>>,
    /// Number of rewrites so far.
    rewritten: AtomicUsize,
    connections: AtomicUsize,
}

#[derive(Clone)]
struct Rewrite {
    direction: Direction,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl ChaosProxy {
    /// Listens on a free port of the loopback interface and connects to `target` for each client.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            is_refusing: AtomicBool::new(false),
            is_paused: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
            allowance: Mutex::new(None),
            rewritten: AtomicUsize::new(0),
            rewrites: Mutex::new(Vec::new()),
            connections: AtomicUsize::new(0),
        });
        let tasks = Tasks::new();
        tasks.spawn(
            "chaos proxy",
            accept(listener, Arc::clone(&shared), tasks.clone()),
        );
        Self {
            address,
            shared,
            tasks,
        }
    }

    /// Starts a proxy for the server in a connection string. Returns a string that connects through
    /// the proxy.
    pub(crate) async fn before(url: &str) -> (Self, String) {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let port = config.get_ports()[0];
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let proxy = Self::start(target).await;
        let through = url.replace(&format!(":{port}/"), &format!(":{}/", proxy.address.port()));
        assert_ne!(through, url, "the connection string names its port");
        (proxy, through)
    }

    /// Returns the address of the proxy.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of current connections.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Resets every current connection, on both sides.
    pub(crate) fn cut(&self) {
        self.shared.cut();
    }

    /// Resets every connection after `bytes` more have been sent to clients, even within a message.
    pub(crate) fn cut_after(&self, bytes: usize) {
        *self.shared.allowance() = Some(bytes);
    }

    /// Returns whether the cut of [`ChaosProxy::cut_after`] is still pending.
    pub(crate) fn will_cut(&self) -> bool {
        self.shared.allowance().is_some()
    }

    /// Sets whether new connections are closed immediately.
    pub(crate) fn refuse(&self, is_refusing: bool) {
        self.shared.is_refusing.store(is_refusing, Ordering::SeqCst);
    }

    /// Stops all traffic in both directions without closing connections, like a dead network.
    pub(crate) fn pause(&self) {
        self.shared.is_paused.send_replace(true);
    }

    /// Resumes all traffic.
    pub(crate) fn resume(&self) {
        self.shared.is_paused.send_replace(false);
    }

    /// Replaces `from` by `to` in all bytes that are sent in `direction` from now on. Both must
    /// have the same length, so that the length fields around them stay correct.
    pub(crate) fn rewrite(&self, direction: Direction, from: &[u8], to: &[u8]) {
        assert_eq!(from.len(), to.len(), "a rewrite must keep the length");
        assert!(!from.is_empty());
        let rewrite = Rewrite {
            direction,
            from: from.to_vec(),
            to: to.to_vec(),
        };
        self.shared.rewrites().push(rewrite);
    }

    /// Returns the number of rewrites so far.
    pub(crate) fn rewritten(&self) -> usize {
        self.shared.rewritten.load(Ordering::SeqCst)
    }

    /// Removes all rewrites.
    pub(crate) fn clear_rewrites(&self) {
        self.shared.rewrites().clear();
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Shared {
    fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    fn allowance(&self) -> std::sync::MutexGuard<'_, Option<usize>> {
        self.allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn rewrites(&self) -> std::sync::MutexGuard<'_, Vec<Rewrite>> {
        self.rewrites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many of `count` bytes may be sent to a client, and whether the cut follows these
    /// bytes.
    fn allow(&self, direction: Direction, count: usize) -> (usize, bool) {
        let mut allowance = self.allowance();
        match &mut *allowance {
            Some(left) if direction == Direction::ToClient => {
                if *left > count {
                    *left -= count;
                    return (count, false);
                }
                let last = *left;
                *allowance = None;
                (last, true)
            }
            _ => (count, false),
        }
    }

    /// Applies the rewrites to `bytes`. Returns how many bytes at the end may be the beginning of a
    /// text to rewrite.
    fn apply_rewrites(&self, direction: Direction, bytes: &mut [u8]) -> usize {
        let mut held = 0;
        for rewrite in self
            .rewrites()
            .iter()
            .filter(|rewrite| rewrite.direction == direction)
        {
            let length = rewrite.from.len();
            let mut at = 0;
            while at + length <= bytes.len() {
                if bytes[at..at + length] == rewrite.from[..] {
                    bytes[at..at + length].copy_from_slice(&rewrite.to);
                    self.rewritten.fetch_add(1, Ordering::SeqCst);
                    at += length;
                } else {
                    at += 1;
                }
            }
            let beginning = (1..length.min(bytes.len() + 1))
                .rev()
                .find(|&count| bytes.ends_with(&rewrite.from[..count]));
            held = held.max(beginning.unwrap_or(0));
        }
        held
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: Tasks) {
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            () = tasks.token().cancelled() => return,
        };
        if shared.is_refusing.load(Ordering::SeqCst) {
            let _ = client.set_zero_linger();
            continue;
        }
        let passing = pass(client, Arc::clone(&shared), tasks.clone());
        tasks.spawn("chaos connection", passing);
    }
}

/// Forwards one connection until either side ends it or the proxy cuts it.
async fn pass(client: TcpStream, shared: Arc<Shared>, tasks: Tasks) {
    let mut cuts = shared.cuts.subscribe();
    let Ok(server) = TcpStream::connect(shared.target).await else {
        let _ = client.set_zero_linger();
        return;
    };
    shared.connections.fetch_add(1, Ordering::SeqCst);
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let is_cut = tokio::select! {
        () = copy(from_client, &mut to_server, Direction::ToServer, &shared) => false,
        () = copy(from_server, &mut to_client, Direction::ToClient, &shared) => false,
        _ = cuts.changed() => true,
        () = tasks.token().cancelled() => true,
    };
    if is_cut {
        // Unsent bytes are dropped and both peers receive a reset, as when a machine crashes.
        let _ = to_client.as_ref().set_zero_linger();
        let _ = to_server.as_ref().set_zero_linger();
    }
    shared.connections.fetch_sub(1, Ordering::SeqCst);
}

async fn copy(
    mut from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    direction: Direction,
    shared: &Shared,
) {
    let mut paused = shared.is_paused.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    let mut held = 0;
    loop {
        let read = if held == 0 {
            from.read(&mut buffer).await
        } else {
            match tokio::time::timeout(HOLD, from.read(&mut buffer[held..])).await {
                Ok(read) => read,
                Err(_) => Ok(0),
            }
        };
        let Ok(read) = read else { return };
        if read == 0 && held == 0 {
            return;
        }
        if paused.wait_for(|paused| !paused).await.is_err() {
            return;
        }
        let filled = held + read;
        let keep = shared.apply_rewrites(direction, &mut buffer[..filled]);
        // If no further bytes completed the text, the bytes that were held back are sent.
        held = if read == 0 { 0 } else { keep };
        let (count, is_last) = shared.allow(direction, filled - held);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if is_last {
            shared.cut();
            // The connection ends when the cut cancels it.
            std::future::pending::<()>().await;
        }
        buffer.copy_within(filled - held..filled, 0);
    }
}

#[tokio::test]
async fn bytes_are_rewritten_across_reads_and_connections_are_cut() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = ChaosProxy::start(listener.local_addr().unwrap()).await;
    proxy.rewrite(Direction::ToClient, b"secret", b"public");
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();

    for part in ["a sec", "ret, no sec", "!"] {
        server.write_all(part.as_bytes()).await.unwrap();
        server.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut found = [0; 17];
    client.read_exact(&mut found).await.unwrap();
    assert_eq!(&found, b"a public, no sec!");

    proxy.cut_after(2);
    assert!(proxy.will_cut());
    server.write_all(b"abcdef").await.unwrap();
    let mut rest = Vec::new();
    // The cut drops unread bytes, so fewer than two bytes may arrive.
    let end = client.read_to_end(&mut rest).await;
    assert!(end.is_err() || rest.len() <= 2, "{rest:?}");
    assert!(b"ab".starts_with(&rest));
    assert!(!proxy.will_cut());

    proxy.refuse(true);
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(!matches!(refused.read(&mut [0; 1]).await, Ok(1)));
}
