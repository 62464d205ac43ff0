//! Tests of the times at which a set is fetched, with a paused clock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::http::{StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

use super::super::key_request::FetchError;
use super::*;
use crate::auth::{KeySet, TokenError};
use crate::config::{AuthConfig, KeySource};
use crate::shutdown::Tasks;

const INTERVALS: Intervals = Intervals {
    refresh: Duration::from_secs(600),
    max_age: Duration::from_secs(86_400),
};

/// One planned response.
#[derive(Clone, Copy, Debug)]
enum Reply {
    /// A set with the key `a`, and its `max-age` in seconds.
    Keys(Option<u64>),
    Unchanged,
    Failure,
    /// No response ever arrives.
    Silence,
}

/// Returns planned responses, then repeats the last one.
struct Plan {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    /// The times of the requests.
    requests: watch::Sender<Vec<Instant>>,
    has_forgotten: Arc<Mutex<bool>>,
}

impl Fetch for Plan {
    async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        self.requests
            .send_modify(|times| times.push(Instant::now()));
        let reply = {
            let mut replies = self.replies.lock().unwrap();
            match replies.len() {
                1 => replies[0],
                _ => replies.pop_front().unwrap(),
            }
        };
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a",
                          "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        match reply {
            Reply::Keys(seconds) => Ok(Fetched {
                keys: Some(KeySet::published(&json!({ "keys": [key] }).to_string())?.0),
                max_age: seconds.map(Duration::from_secs),
            }),
            Reply::Unchanged => Ok(Fetched {
                keys: None,
                max_age: None,
            }),
            Reply::Failure => Err(FetchError::Status(StatusCode::BAD_GATEWAY)),
            Reply::Silence => std::future::pending().await,
        }
    }

    fn forget(&mut self) {
        *self.has_forgotten.lock().unwrap() = true;
    }
}

/// A set that is fetched by a task. The clock is paused and jumps over waiting times.
struct Scene {
    verifier: Verifier,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    requests: watch::Receiver<Vec<Instant>>,
    has_forgotten: Arc<Mutex<bool>>,
    task: JoinHandle<()>,
}

impl Scene {
    fn start(replies: &[Reply]) -> Self {
        Self::with(INTERVALS, replies)
    }

    fn with(intervals: Intervals, replies: &[Reply]) -> Self {
        let config = AuthConfig {
            jwt_secret: None,
            jwt_secret_next: None,
            jwks: Some(KeySource::Url(Uri::from_static("https://a.example/k"))),
            jwks_refresh: intervals.refresh,
            jwks_max_age: intervals.max_age,
            issuers: Vec::new(),
            audience: None,
            issuer: None,
            cookie_names: Vec::new(),
            anon_key: None,
            service_role_key: None,
            publishable_keys: Vec::new(),
            secret_keys: Vec::new(),
        };
        let verifier = Verifier::from_config(&config).unwrap();
        let feed = verifier.feeds().remove(0);
        let replies = Arc::new(Mutex::new(replies.iter().copied().collect()));
        let (sender, requests) = watch::channel(Vec::new());
        let has_forgotten = Arc::new(Mutex::new(false));
        let plan = Plan {
            replies: Arc::clone(&replies),
            requests: sender,
            has_forgotten: Arc::clone(&has_forgotten),
        };
        let metrics = AuthMetrics::default().key_set("a");
        let running = run(feed, plan, intervals, metrics);
        Self {
            verifier,
            replies,
            requests,
            has_forgotten,
            task: Tasks::new().spawn("key set", running),
        }
    }

    /// Waits for request number `count`, and returns the seconds since the one before it.
    async fn pause_before(&mut self, count: usize) -> u64 {
        let times = self.requests.wait_for(|times| times.len() >= count);
        let times = times.await.unwrap().clone();
        (times[count - 1] - times[count - 2]).as_secs()
    }

    fn count(&self) -> usize {
        self.requests.borrow().len()
    }

    fn plan(&self, reply: Reply) {
        *self.replies.lock().unwrap() = [reply].into();
    }

    /// Returns the error of an unsigned token that names this key.
    fn refusal(&self, kid: &str) -> TokenError {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#);
        let token = format!("{}.{}.AAAA", part(&header), part("{}"));
        self.verifier.verify_socket(&token).unwrap_err()
    }

    /// Waits until no attempt is running.
    async fn settled(&self) {
        assert!(self.verifier.await_keys().await);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn unknown(kid: &str) -> TokenError {
    TokenError::Signer {
        kid: Some(kid.to_owned()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_is_fetched_as_often_as_its_issuer_asks_within_bounds() {
    for (asked, from, to) in [
        (None, 540, 660),
        (Some(0), 54, 66),
        (Some(1_200), 1_080, 1_320),
        (Some(86_400), 3_240, 3_960),
    ] {
        let mut scene = Scene::start(&[Reply::Keys(asked)]);
        let pause = scene.pause_before(2).await;
        assert!((from..=to).contains(&pause), "{asked:?} {pause}");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_attempts_are_repeated_after_increasing_delays() {
    let mut scene = Scene::start(&[Reply::Failure]);
    for (count, expected) in [
        (2, 1.0),
        (3, 2.0),
        (4, 4.0),
        (5, 8.0),
        (9, 60.0),
        (10, 60.0),
    ] {
        let pause = scene.pause_before(count).await as f64;
        let (from, to) = ((expected * 0.9_f64).floor(), expected * 1.1);
        assert!((from..=to).contains(&pause), "{count} {pause}");
    }
    assert_eq!(scene.refusal("a"), TokenError::KeysUnavailable);
    scene.plan(Reply::Keys(None));
    scene.pause_before(scene.count() + 1).await;
    scene.settled().await;
    assert_eq!(scene.refusal("a"), TokenError::BadSignature);
}

#[tokio::test(start_paused = true)]
async fn made_up_keys_cause_one_request_in_thirty_seconds() {
    let mut scene = Scene::start(&[Reply::Keys(None)]);
    scene.settled().await;
    for round in 0..3 {
        let before = scene.count();
        for number in 0..1_000 {
            scene.refusal(&format!("{round}.{number}"));
        }
        scene.pause_before(before + 1).await;
        scene.settled().await;
        for number in 0..1_000 {
            let kid = format!("{round}.{number}");
            assert_eq!(scene.refusal(&kid), unknown(&kid));
        }
        advance(Duration::from_secs(29)).await;
        assert_eq!(scene.refusal("x"), unknown("x"));
        assert_eq!(scene.count(), before + 1);
        advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_key_that_may_exist_is_not_refused_for_good() {
    let mut scene = Scene::start(&[Reply::Keys(None), Reply::Failure]);
    scene.settled().await;
    assert_eq!(scene.refusal("b"), TokenError::KeysUnavailable);
    scene.pause_before(2).await;
    scene.settled().await;
    // After a failed attempt, the key may still exist.
    assert_eq!(scene.refusal("b"), TokenError::KeysUnavailable);
    // Known keys are still used.
    assert_eq!(scene.refusal("a"), TokenError::BadSignature);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_keys_is_limited() {
    let scene = Scene::start(&[Reply::Silence]);
    let begun = Instant::now();
    scene.settled().await;
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!(scene.refusal("a"), TokenError::KeysUnavailable);
    let all = futures_util::future::join_all((0..1_000).map(|_| scene.verifier.await_keys()));
    tokio::select! {
        biased;
        _ = all => panic!("they wait"),
        may_wait = scene.verifier.await_keys() => assert!(!may_wait, "too many wait"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_that_cannot_be_fetched_is_used_until_its_maximum_age() {
    let scene = Scene::start(&[Reply::Keys(None), Reply::Failure]);
    scene.settled().await;
    let mut changes = scene.verifier.key_changes();
    let begun = Instant::now();
    sleep(Duration::from_secs(86_390)).await;
    assert_eq!(scene.refusal("a"), TokenError::BadSignature);
    assert!(!*scene.has_forgotten.lock().unwrap());
    changes.mark_unchanged();
    changes.changed().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(86_399));
    assert_eq!(scene.refusal("a"), TokenError::KeysUnavailable);
    // If the `ETag` were still sent, the issuer would respond that the set has not changed, and no
    // set would be in use.
    assert!(*scene.has_forgotten.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_set_does_not_age() {
    let scene = Scene::start(&[Reply::Keys(None), Reply::Unchanged]);
    sleep(Duration::from_secs(200_000)).await;
    assert_eq!(scene.refusal("a"), TokenError::BadSignature);
    // A long interval does not make a set expire between two attempts.
    let intervals = Intervals {
        max_age: Duration::from_secs(100),
        ..INTERVALS
    };
    let scene = Scene::with(intervals, &[Reply::Keys(None), Reply::Unchanged]);
    sleep(Duration::from_secs(10_000)).await;
    assert_eq!(scene.refusal("a"), TokenError::BadSignature);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_can_be_requested_at_any_time() {
    let mut scene = Scene::start(&[Reply::Keys(None)]);
    scene.settled().await;
    for count in 2..5 {
        scene.verifier.refresh_keys();
        assert_eq!(scene.pause_before(count).await, 0);
        scene.settled().await;
    }
}
