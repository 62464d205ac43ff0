//! A TCP proxy that can cut, pause, refuse, and rewrite what passes through it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rapport::shutdown::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long bytes that may be the beginning of a text to rewrite are held back.
const HOLD: Duration = Duration::from_millis(20);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From who connected to the proxy.
    ToServer,
    /// From where the proxy connects to.
    ToClient,
}

/// The proxy. It stops, and cuts what passes through it, when it is dropped.
pub(crate) struct ChaosProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Tasks,
}

struct Shared {
    target: SocketAddr,
    is_refusing: AtomicBool,
    is_paused: watch::Sender<bool>,
    /// Each rise cuts the connections that exist.
    cuts: watch::Sender<u64>,
    /// Bytes that may still go to clients before the next cut.
    allowance: Mutex<Option<usize>>,
    rewrites: Mutex<Vec<Rewrite>>,
    /// How often a rewrite was made.
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

    /// Stands before the server that a connection string names; returns the string that leads
    /// through the proxy.
    pub(crate) async fn before(url: &str) -> (Self, String) {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let port = config.get_ports()[0];
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let proxy = Self::start(target).await;
        let through = url.replace(&format!(":{port}/"), &format!(":{}/", proxy.address.port()));
        assert_ne!(through, url, "the connection string names its port");
        (proxy, through)
    }

    /// Where to connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections pass through now.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Resets every connection that passes through, on both sides.
    pub(crate) fn cut(&self) {
        self.shared.cut();
    }

    /// Resets every connection once `bytes` more have gone to clients, wherever in a message
    /// that is.
    pub(crate) fn cut_after(&self, bytes: usize) {
        *self.shared.allowance() = Some(bytes);
    }

    /// Whether a cut asked for by [`ChaosProxy::cut_after`] is still to come.
    pub(crate) fn will_cut(&self) -> bool {
        self.shared.allowance().is_some()
    }

    /// Whether new connections are closed at once.
    pub(crate) fn refuse(&self, is_refusing: bool) {
        self.shared.is_refusing.store(is_refusing, Ordering::SeqCst);
    }

    /// Lets nothing through, in either direction, and closes nothing: a dead network.
    pub(crate) fn pause(&self) {
        self.shared.is_paused.send_replace(true);
    }

    /// Lets everything through again.
    pub(crate) fn resume(&self) {
        self.shared.is_paused.send_replace(false);
    }

    /// Replaces `from` by `to` in what goes in `direction` from now on. Both have one length, so
    /// that no length field around them lies.
    pub(crate) fn rewrite(&self, direction: Direction, from: &[u8], to: &[u8]) {
        assert_eq!(from.len(), to.len(), "a rewrite keeps the length");
        assert!(!from.is_empty());
        let rewrite = Rewrite {
            direction,
            from: from.to_vec(),
            to: to.to_vec(),
        };
        self.shared.rewrites().push(rewrite);
    }

    /// How often bytes were rewritten so far.
    pub(crate) fn rewritten(&self) -> usize {
        self.shared.rewritten.load(Ordering::SeqCst)
    }

    /// Forgets all rewrites.
    pub(crate) fn keep_bytes(&self) {
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

    /// How many of `count` bytes may go to a client, and whether the cut comes behind them.
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

    /// Applies the rewrites to `bytes`; returns how many at the end may be the beginning of a text
    /// to rewrite.
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

/// One connection, until either side ends it or it is cut.
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
        // Unsent bytes are thrown away and the peers see a reset, as when a machine dies.
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
        // Nothing came to complete what was held back: it is let go.
        held = if read == 0 { 0 } else { keep };
        let (count, is_last) = shared.allow(direction, filled - held);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if is_last {
            shared.cut();
            // The cut ends this connection from outside.
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
    // The cut throws away what was not read yet, so less than the two bytes may arrive.
    let end = client.read_to_end(&mut rest).await;
    assert!(end.is_err() || rest.len() <= 2, "{rest:?}");
    assert!(b"ab".starts_with(&rest));
    assert!(!proxy.will_cut());

    proxy.refuse(true);
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(!matches!(refused.read(&mut [0; 1]).await, Ok(1)));
}
