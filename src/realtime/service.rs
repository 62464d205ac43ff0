//! The running realtime service: constructs its parts and starts their tasks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::channel::TokenMarks;
use super::channel::authorize::Authorizer;
use super::hub::drain::drain;
use super::hub::rate::{self, Rates};
use super::hub::{Hub, presence_feed};
use super::messages::database_broadcast;
use super::messages::replay::Replayer;
use super::messages::store::Store;
use super::session::Shared;
use super::wire::outbound::Sockets;
use super::work::{self, Workshop};
use super::{change_feed, key_changes, publication_feed, recheck, server_broadcast};
use crate::auth::Verifier;
use crate::bus::Listener;
use crate::bus::rechecks::Rechecks;
use crate::config::RealtimeConfig;
use crate::db::connect::Connector;
use crate::http::addresses::AddressLimit;
use crate::http::admission::Admission;
use crate::http::anonymous_limiter::AnonymousLimiter;
use crate::http::budget::Budget;
use crate::http::peer::TrustedProxies;
use crate::observability::metrics::RealtimeMetrics;
use crate::shutdown::Tasks;
use crate::visibility::Visibility;

/// The size in bytes that a body may have even when the budget for all bodies is used up. A chat
/// message fits.
const MODEST_BODY_BYTES: usize = 16 * 1024;

/// The running realtime service. Cheap to clone.
#[derive(Clone)]
pub struct Realtime {
    pub(super) shared: Arc<Shared>,
    pub(super) workshop: Arc<Workshop>,
    pub(super) admission: Arc<Admission>,
    /// How many sockets each address may hold.
    pub(super) sockets_per_address: AddressLimit,
    pub(super) proxies: TrustedProxies,
    pub(super) anonymous_limiter: AnonymousLimiter,
    /// The memory budget for the bodies of broadcast requests while they are being received.
    pub(super) bodies: Budget,
    pub(super) tasks: Tasks,
}

impl Realtime {
    /// Starts delivering the changes of `listener`, and prepares for accepting sockets. When
    /// `tasks` is stopped, joins are refused and every socket is closed with 1012.
    pub fn start(
        verifier: Verifier,
        visibility: Visibility,
        mut listener: Listener,
        config: RealtimeConfig,
        metrics: RealtimeMetrics,
        tasks: &Tasks,
    ) -> Self {
        let rates = Arc::new(Rates::new(&config));
        let keeping = rate::run(Arc::clone(&rates), tasks.token().clone());
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
            "key changes",
            key_changes::run(verifier.clone(), Arc::clone(&hub), tasks.clone()),
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
            sockets_per_address: AddressLimit::new(config.max_sockets_per_address),
            proxies: TrustedProxies::default(),
            anonymous_limiter: AnonymousLimiter::default(),
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

    /// Trusts `X-Forwarded-For` from these proxies.
    #[must_use]
    pub fn with_trusted_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Sets the limits for HTTP requests without a sign-in.
    #[must_use]
    pub fn with_anonymous_limiter(mut self, anonymous_limiter: AnonymousLimiter) -> Self {
        self.anonymous_limiter = anonymous_limiter;
        self
    }

    /// Closes all sockets before the server stops. As soon as this is called, joins and handshakes
    /// are refused. Every socket is closed with 1012 within `realtime.drain_window_ms`, or within
    /// `longest` if that is shorter. Returns when all sockets are closing; their tasks finish on
    /// their own.
    pub async fn drain(&self, longest: Duration) {
        let window = self.shared.config.drain_window.min(longest);
        drain(&self.shared.hub, window).await;
    }

    /// Makes private topics managed if `is_managed` returns `true` for their name, which it
    /// receives without `realtime:`. On managed topics the presence key is the `sub` of the token,
    /// and `rechecks` can request a recheck of the permissions. On other topics clients choose
    /// their presence keys, and permissions to read are checked only at the join and with each new
    /// token, as in Supabase Realtime.
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

    /// Allows private channels. A client may join a private channel if the policies of
    /// `realtime.messages` let it read. Broadcasts on private channels can be stored under their
    /// sender's rights, and stored messages are replayed. Unless this method is called, joining,
    /// storing and replaying are refused.
    ///
    /// The login of `connector` must either own `realtime.messages`, or be allowed to insert into
    /// it and to bypass its policies. It must also be allowed to switch to the roles of tokens.
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
