//! What every benchmark needs: the real server as a child process, sockets that speak the protocol, CPU accounts.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// What a benchmark may fail with: its text is printed.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// `rapport dev --ephemeral` as a process of its own, so that its CPU time can be told from the benchmark's.
pub(crate) struct Server {
    child: Child,
    folder: tempfile::TempDir,
    /// `http://127.0.0.1:PORT`
    pub(crate) api_url: String,
    /// Secret of the HS256 tokens.
    pub(crate) jwt_secret: String,
    /// The owner's connection URL.
    pub(crate) db_url: String,
}

impl Server {
    /// Starts the server and waits until it is ready.
    pub(crate) fn start() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let env_file = folder.path().join("server.env");
        let mut child = Command::new(env!("CARGO_BIN_EXE_rapport"))
            .args(["dev", "--ephemeral", "--port", "0", "--env-file"])
            .arg(&env_file)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        let patience = Instant::now() + Duration::from_secs(60);
        while !env_file.exists() {
            if let Some(status) = child.try_wait()? {
                return Err(format!("the server ended: {status}").into());
            }
            if Instant::now() > patience {
                return Err("the server was not ready after 60 s".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let text = fs::read_to_string(&env_file)?;
        let value = |key: &str| -> Result<String, Failure> {
            let found = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{key}=")));
            Ok(found
                .ok_or(format!("no {key} in the server's file"))?
                .trim_matches('"')
                .to_owned())
        };
        Ok(Self {
            api_url: value("API_URL")?,
            jwt_secret: value("JWT_SECRET")?,
            db_url: value("DB_URL")?,
            child,
            folder,
        })
    }

    /// CPU seconds used so far by the server, and by the PostgreSQL that it started.
    pub(crate) fn cpu_seconds(&self) -> (f64, f64) {
        let server = self.child.id();
        let database: f64 = processes()
            .filter(|process| process.descends_from(server))
            .map(|p| p.cpu_seconds)
            .sum();
        let own = processes()
            .find(|process| process.id == server)
            .map_or(0.0, |process| process.cpu_seconds);
        (own, database)
    }

    /// Stops the server as a service manager would and returns whether it ended cleanly.
    pub(crate) fn stop(mut self) -> Result<bool, Failure> {
        Command::new("kill")
            .arg(self.child.id().to_string())
            .status()?;
        let clean = self.child.wait()?.success();
        self.folder.close()?;
        Ok(clean)
    }
}

struct Process {
    id: u32,
    parent: u32,
    cpu_seconds: f64,
}

impl Process {
    /// A line of `/proc/PID/stat` (proc(5)); the command's name may hold spaces, so it is read from its closing bracket.
    fn read(path: &Path) -> Option<Self> {
        // The kernel counts in ticks of 1/100 s on every Linux that Rust runs on.
        const TICKS_PER_SECOND: f64 = 100.0;
        let id = path.file_name()?.to_str()?.parse().ok()?;
        let text = fs::read_to_string(path.join("stat")).ok()?;
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(Self {
            id,
            parent: fields.get(1)?.parse().ok()?,
            cpu_seconds: ticks / TICKS_PER_SECOND,
        })
    }

    fn descends_from(&self, ancestor: u32) -> bool {
        let mut parent = self.parent;
        while parent > 1 {
            if parent == ancestor {
                return true;
            }
            match Self::read(Path::new(&format!("/proc/{parent}"))) {
                Some(process) => parent = process.parent,
                None => return false,
            }
        }
        false
    }
}

fn processes() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Process::read(&entry.path()))
}

/// A socket that speaks version 2.0.0 of the protocol and has joined one channel.
pub(crate) struct Subscriber {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Subscriber {
    /// Connects as the owner of `token`, joins `topic` with one `postgres_changes` binding and waits until it is live.
    pub(crate) async fn join(
        server: &Server,
        token: &str,
        topic: &str,
        binding: Value,
    ) -> Result<Self, Failure> {
        let url = format!(
            "{}/realtime/v1/websocket?vsn=2.0.0&apikey={token}",
            server.api_url.replace("http", "ws")
        );
        let (mut socket, _) = connect_async(url).await?;
        let payload = json!({"config": {"postgres_changes": [binding]}, "access_token": token});
        let join = json!(["1", "1", format!("realtime:{topic}"), "phx_join", payload]);
        socket.send(Message::text(join.to_string())).await?;
        let mut subscriber = Self { socket };
        loop {
            let (event, payload) = subscriber.next().await?;
            match event.as_str() {
                "phx_reply" if payload["status"] == "error" => {
                    return Err(payload.to_string().into());
                }
                "system" if payload["status"] == "ok" => return Ok(subscriber),
                "system" => return Err(payload.to_string().into()),
                _ => {}
            }
        }
    }

    /// The next message's event and payload.
    pub(crate) async fn next(&mut self) -> Result<(String, Value), Failure> {
        loop {
            match self.socket.next().await.ok_or("the socket was closed")?? {
                Message::Text(text) => {
                    let mut parts: [Value; 5] = serde_json::from_str(&text)?;
                    let event = parts[3].as_str().unwrap_or_default().to_owned();
                    return Ok((event, parts[4].take()));
                }
                Message::Close(reason) => return Err(format!("closed: {reason:?}").into()),
                _ => {}
            }
        }
    }

    /// Sends the heartbeat that keeps the socket open.
    pub(crate) async fn heartbeat(&mut self) -> Result<(), Failure> {
        Ok(self
            .socket
            .send(Message::text(r#"[null,"h","phoenix","heartbeat",{}]"#))
            .await?)
    }
}
