//! A server that publishes a key set, and tokens that its keys sign.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rapport::shutdown::Tasks;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A key pair for tests only: the private key (PKCS #8), and the coordinates of the public one.
pub(crate) struct Pair {
    pub(crate) kid: &'static str,
    pub(crate) private: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
}

pub(crate) const A: Pair = Pair {
    kid: "a",
    private: "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWciRWR9LIlZfnRbsohYfaCf7dMk1hZTqzliTMKVYWnihRANCAAQ/+oNyl87VBVnbQKao3/GsIjA1GoNKqnHztKPt5d4J9o0WHhNSSVhISNMSS3B4Bl7U4YEMio0aapc/xb3vqURd",
    x: "P_qDcpfO1QVZ20CmqN_xrCIwNRqDSqpx87Sj7eXeCfY",
    y: "jRYeE1JJWEhI0xJLcHgGXtThgQyKjRpqlz_Fve-pRF0",
};

pub(crate) const B: Pair = Pair {
    kid: "b",
    private: "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgfutmzfiDLgYaH98m1f4bIn//2Prn9ez2e6DNFbB5622hRANCAASs2BL8nCFmzX3Bo/jU8xihpiXci2RdUbCzvMTyY9o0Rd2xnfC3vL12299BFMI65sox90DTlMn4bZmL94/w+Ynr",
    x: "rNgS_JwhZs19waP41PMYoaYl3ItkXVGws7zE8mPaNEU",
    y: "3bGd8Le8vXbb30EUwjrmyjH3QNOUyfhtmYv3j_D5ies",
};

/// Another key with the same `kid` as [`A`].
pub(crate) const OTHER_A: Pair = Pair {
    kid: "a",
    private: "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgQGLau96Lmg3kw8HOuXSLjvvKy7SPEKeL5ytC8qLmcRehRANCAAQKy+ODbzhxY5XWcwqj4Cril9eoOcDcRq8dXHYz1XOWEjsqLtI9bbDSk6jVKN9B8ZyttTLtAq0pRgoJ+mlv/XgU",
    x: "Csvjg284cWOV1nMKo-Aq4pfXqDnA3EavHVx2M9VzlhI",
    y: "Oyou0j1tsNKTqNUo30HxnK21Mu0CrSlGCgn6aW_9eBQ",
};

impl Pair {
    /// Returns the public key as a member of a key set.
    pub(crate) fn public(&self) -> Value {
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid,
                "x": self.x, "y": self.y })
    }

    /// Signs claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.to_owned());
        let key = EncodingKey::from_ec_der(&STANDARD.decode(self.private).unwrap());
        encode(&header, claims, &key).unwrap()
    }
}

/// Returns a key set of these pairs.
pub(crate) fn set(pairs: &[&Pair]) -> Value {
    let keys: Vec<Value> = pairs.iter().map(|pair| pair.public()).collect();
    json!({ "keys": keys })
}

/// A response of the server.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn ok(body: impl ToString) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.to_string(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

type Respond = dyn Fn(&str, &HeaderMap) -> Reply + Send + Sync;

/// The server. It stops when dropped.
pub(crate) struct KeyServer {
    pub(crate) address: SocketAddr,
    respond: Arc<Mutex<Arc<Respond>>>,
    count: watch::Receiver<usize>,
    tasks: Tasks,
}

impl KeyServer {
    /// Starts a server that responds to every path with this key set.
    pub(crate) async fn start(keys: Value) -> Self {
        Self::responding(move |_, _| Reply::ok(&keys)).await
    }

    pub(crate) async fn responding(
        respond: impl Fn(&str, &HeaderMap) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, respond)
    }

    /// Starts a server on a listener, which may have been opened earlier.
    pub(crate) fn on(
        listener: TcpListener,
        respond: impl Fn(&str, &HeaderMap) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let respond: Arc<Mutex<Arc<Respond>>> = Arc::new(Mutex::new(Arc::new(respond)));
        let (counter, count) = watch::channel(0);
        let current = Arc::clone(&respond);
        let router = Router::new().fallback(async move |request: Request| {
            let respond = Arc::clone(&current.lock().unwrap());
            let reply = respond(request.uri().path(), request.headers());
            counter.send_modify(|count| *count += 1);
            let mut response = Response::builder().status(reply.status);
            for (name, value) in reply.headers {
                response = response.header(name, value);
            }
            response.body(Body::from(reply.body)).unwrap()
        });
        let tasks = Tasks::new();
        let stop = tasks.token().clone();
        tasks.spawn("key server", async move {
            let serving = axum::serve(listener, router);
            tokio::select! {
                result = serving => result.unwrap(),
                () = stop.cancelled() => {}
            }
        });
        Self {
            address,
            respond,
            count,
            tasks,
        }
    }

    /// Returns the URL of the key set.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    /// Publishes another key set.
    pub(crate) fn publish(&self, keys: Value) {
        self.respond(move |_, _| Reply::ok(&keys));
    }

    pub(crate) fn respond(
        &self,
        respond: impl Fn(&str, &HeaderMap) -> Reply + Send + Sync + 'static,
    ) {
        *self.respond.lock().unwrap() = Arc::new(respond);
    }

    /// Returns the number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until there were this many requests.
    pub(crate) async fn requested(&mut self, count: usize) {
        self.count.wait_for(|now| *now >= count).await.unwrap();
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}
