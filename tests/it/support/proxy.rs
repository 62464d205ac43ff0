//! A way to the database that can be cut, and that can spoil what the server sends on it.

use std::sync::{Arc, Mutex};

use rapport::shutdown::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the way does to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes them on.
    Open,
    /// Replaces the first by the equally long second in everything that goes to the database.
    Replace(&'static [u8], &'static [u8]),
    /// Cuts every connection, and new ones at once.
    Cut,
}

/// The proxy. Its connections end with it.
pub(crate) struct Proxy {
    /// The connection string that leads through it.
    pub(crate) url: String,
    mode: watch::Sender<Mode>,
    replaced: Arc<Mutex<usize>>,
    tasks: Tasks,
}

impl Proxy {
    /// In front of the database of this connection string.
    pub(crate) async fn before(url: &str) -> Self {
        let target: tokio_postgres::Config = url.parse().unwrap();
        let port = target.get_ports()[0];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let (mode, _) = watch::channel(Mode::Open);
        let replaced = Arc::new(Mutex::new(0));
        let tasks = Tasks::new();
        let (modes, counter, parts) = (mode.subscribe(), Arc::clone(&replaced), tasks.clone());
        tasks.spawn("proxy", async move {
            let stopped = parts.token().clone();
            while let Some(Ok((client, _))) = stopped.run_until_cancelled(listener.accept()).await {
                let (modes, counter) = (modes.clone(), Arc::clone(&counter));
                parts.spawn("proxied connection", async move {
                    let _ = forward(client, port, modes, &counter).await;
                });
            }
        });
        let url = url.replacen(&format!(":{port}"), &format!(":{own_port}"), 1);
        Self {
            url,
            mode,
            replaced,
            tasks,
        }
    }

    /// Changes what happens from here on, also to connections that are open.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How often something was replaced.
    pub(crate) fn replaced(&self) -> usize {
        *self.replaced.lock().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Cut);
        self.tasks.stop();
    }
}

async fn forward(
    client: TcpStream,
    port: u16,
    mut modes: watch::Receiver<Mode>,
    replaced: &Mutex<usize>,
) -> std::io::Result<()> {
    if *modes.borrow() == Mode::Cut {
        return Ok(());
    }
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let spoiling = modes.clone();
    tokio::select! {
        _ = copy(from_client, to_server, Some((&spoiling, replaced))) => {}
        _ = copy(from_server, to_client, None) => {}
        _ = modes.wait_for(|mode| *mode == Mode::Cut) => {}
    }
    Ok(())
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    spoil: Option<(&watch::Receiver<Mode>, &Mutex<usize>)>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let bytes = &mut buffer[..read];
        if let Some((modes, replaced)) = spoil
            && let Mode::Replace(what, with) = *modes.borrow()
        {
            for at in 0..bytes.len().saturating_sub(what.len() - 1) {
                if bytes[at..].starts_with(what) {
                    bytes[at..at + with.len()].copy_from_slice(with);
                    *replaced.lock().unwrap() += 1;
                }
            }
        }
        to.write_all(bytes).await?;
    }
}
