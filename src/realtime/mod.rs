//! Clients over WebSocket: sessions that join channels, and what reaches them there.
//!
//! A *socket* is a connection; a *session* is what it stands for, without any I/O; a *channel* is
//! a session's membership of a *topic*. Three things come in: messages of clients, which a session
//! turns into effects, and broadcasts over HTTP; row changes from the bus, which the change feed hands
//! to the channels that may see them; and rows of `realtime.messages` and broadcasts of the server itself, which go to the members of
//! their topic. All leave through the bounded queue of a socket. Who is present on a topic is kept with
//! the topic, and the presence feed tells its members what changes.

pub mod api;
pub mod change_feed;
pub mod channel;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod hub;
pub mod messages;
pub mod protocol;
pub mod publication_feed;
pub mod recheck;
pub mod server_broadcast;
pub mod session;
pub mod socket;
pub mod wire;
pub mod work;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use tokio::sync::{Semaphore, watch};

use self::api::bodies::MODEST_BODY_BYTES;
use self::channel::TokenMarks;
use self::channel::authorize::Authorizer;
use self::hub::rate::{self, Rates};
use self::hub::{Hub, presence_feed};
use self::messages::database_broadcast;
use self::messages::replay::Replayer;
use self::messages::store::Store;
use self::session::Shared;
use self::socket::{drain, handshake};
use self::wire::sockets::Sockets;
use self::work::Workshop;
use crate::auth::Verifier;
use crate::bus::Listener;
use crate::bus::rechecks::Rechecks;
use crate::config::RealtimeConfig;
use crate::db::connect::Connector;
use crate::http::admission::Admission;
use crate::http::budget::Budget;
use crate::http::openapi::ApiRouter;
use crate::http::peer::TrustedProxies;
use crate::http::strangers::Strangers;
use crate::observability::metrics::RealtimeMetrics;
use crate::shutdown::Tasks;
use crate::visibility::Visibility;

/// The running part. Cheap to clone.
#[derive(Clone)]
pub struct Realtime {
    shared: Arc<Shared>,
    workshop: Arc<Workshop>,
    admission: Arc<Admission>,
    proxies: TrustedProxies,
    strangers: Strangers,
    /// What the bodies of requests to broadcast may take that arrive.
    bodies: Budget,
    tasks: Tasks,
}

impl Realtime {
    /// Starts delivering the changes of `listener` and gets ready for sockets. When `tasks` is
    /// asked to stop, joins are refused and every socket is closed with 1012.
    pub fn start(
        verifier: Verifier,
        visibility: Visibility,
        mut listener: Listener,
        config: RealtimeConfig,
        metrics: RealtimeMetrics,
        tasks: &Tasks,
    ) -> Self {
        let rates = Arc::new(Rates::new(&config));
        let keeping = rate::keep(Arc::clone(&rates), tasks.token().clone());
        tasks.spawn("rates", keeping);
        let bodies = Budget::new(
            config.all_requests_max_bytes,
            MODEST_BODY_BYTES,
            &metrics.requests_bytes,
        );
        let sockets = Sockets::new(&config, &metrics);
        let hub = Arc::new(
            Hub::new(metrics)
                .with_sockets(sockets)
                .with_rates(rates)
                .with_people(listener.people()),
        );
        if let Some(broadcasts) = listener.take_broadcasts() {
            tasks.spawn(
                "server broadcasts",
                server_broadcast::run(broadcasts, Arc::clone(&hub), tasks.clone()),
            );
        }
        let messages = listener.take_messages();
        let messages_live = match &messages {
            Some(messages) => messages.watch_live(),
            None => watch::channel(false).1,
        };
        if let Some(messages) = messages {
            tasks.spawn(
                "database broadcasts",
                database_broadcast::run(
                    messages,
                    Arc::clone(&hub),
                    config.max_broadcast_bytes,
                    tasks.clone(),
                ),
            );
        }
        tasks.spawn(
            "change feed",
            change_feed::run(
                listener,
                visibility.clone(),
                Arc::clone(&hub),
                tasks.clone(),
            ),
        );
        tasks.spawn(
            "publication feed",
            publication_feed::run(visibility.clone(), Arc::clone(&hub), tasks.clone()),
        );
        tasks.spawn(
            "presence feed",
            presence_feed::run(Arc::clone(&hub), tasks.token().clone()),
        );
        let (stopping, token) = (Arc::clone(&hub), tasks.token().clone());
        tasks.spawn("end of sockets", async move {
            token.cancelled().await;
            stopping.refuse_joins();
            stopping.close_all();
        });
        let admission = Admission::new(
            config.connection_burst_per_address,
            config.connections_per_second_per_address,
        );
        Self {
            admission: Arc::new(admission),
            proxies: TrustedProxies::default(),
            strangers: Strangers::default(),
            bodies,
            workshop: Arc::new(Workshop {
                visibility,
                authorizer: None,
                store: None,
                replayer: None,
                hub: Arc::clone(&hub),
                messages_live,
                rechecks: Arc::new(Semaphore::new(work::MAX_RECHECKS)),
            }),
            shared: Arc::new(Shared {
                verifier,
                config,
                hub,
                marks: TokenMarks::default(),
                is_managed: |_| false,
            }),
            tasks: tasks.clone(),
        }
    }

    /// Believes these proxies whom they forward for.
    #[must_use]
    pub fn behind(mut self, proxies: TrustedProxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Limits what people may send over HTTP who are not signed in.
    #[must_use]
    pub fn limiting(mut self, strangers: Strangers) -> Self {
        self.strangers = strangers;
        self
    }

    /// Empties the server before it stops: joins and handshakes are refused from now on, and every
    /// socket is closed with 1012 within `realtime.drain_window_ms`, but no longer than `longest`.
    /// Returns when all are told.
    pub async fn drain(&self, longest: Duration) {
        let window = self.shared.config.drain_window.min(longest);
        drain::drain(&self.shared.hub, window).await;
    }

    /// Manages the private topics whose names, without `realtime:`, `is_managed` accepts: the presence
    /// key there is the `sub` of the token, and permissions are rechecked on request through
    /// `rechecks`. On other topics clients choose their presence keys, and permissions are checked at
    /// the join and with each new token, as in the original.
    #[must_use]
    pub fn with_managed_topics(mut self, is_managed: fn(&str) -> bool, rechecks: Rechecks) -> Self {
        self.shared = Arc::new(Shared {
            is_managed,
            ..(*self.shared).clone()
        });
        self.tasks.spawn(
            "permission rechecks",
            recheck::run(rechecks, Arc::clone(&self.shared.hub), self.tasks.clone()),
        );
        self
    }

    /// Lets private channels be joined by those whom the policies of `realtime.messages` let read,
    /// stores broadcasts there in their senders' names, and replays what is stored. Without this they are refused. The login of `connector`
    /// must own that table, or be allowed to insert into it and bypass its policies, and be allowed
    /// to take on the roles of tokens.
    #[must_use]
    pub fn with_private_channels(mut self, connector: Connector) -> Self {
        let mut workshop = (*self.workshop).clone();
        let metrics = workshop.hub.metrics().clone();
        let hub = Arc::clone(&workshop.hub);
        workshop.store = Some(Store::new(connector.clone(), hub, &self.tasks));
        workshop.replayer = Some(Replayer::new(connector.clone(), &self.tasks));
        workshop.authorizer = Some(Authorizer::new(connector, metrics, &self.tasks));
        self.workshop = Arc::new(workshop);
        self
    }
}

/// The socket's two paths, the public one and the one behind a gateway that rewrites (protocol 1.1),
/// and the routes to broadcast over HTTP.
#[expect(
    clippy::disallowed_methods,
    reason = "OpenAPI has no words for a socket; `docs/protocol.md` describes it"
)]
pub fn routes(realtime: Realtime) -> ApiRouter {
    let sockets = Router::new()
        .route("/realtime/v1/websocket", any(handshake::upgrade))
        .route("/socket/websocket", any(handshake::upgrade))
        .with_state(realtime.clone());
    api::routes(realtime).map(|routes| routes.merge(sockets))
}
