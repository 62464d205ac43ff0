//! The background tasks of the chat.

use super::composing::Composing;
use super::delivery;
use super::events::Events;
use super::presence_reports::PresenceReporter;
use super::rights::Rights;
use super::rights::standing::Standings;
use super::state::ChatState;
use super::unread::Unread;
use crate::config::ChatConfig;
use crate::observability::metrics::PresenceMetrics;
use crate::shutdown::Tasks;

impl ChatState {
    /// Starts the background tasks: events on chat topics, rechecks of their permissions, delivered
    /// positions, and presence derived from sockets. They end with `tasks`.
    pub fn start(&self, config: &ChatConfig, metrics: PresenceMetrics, tasks: &Tasks) {
        let broadcasts = self.bus.broadcasts();
        let unread = Unread::new(broadcasts.clone());
        let rights = Rights::new(self.bus.rechecks().clone());
        let typing = self.typing.clone();
        let composing = Composing::new(broadcasts.clone());
        let events = Events::new(
            broadcasts.clone(),
            typing,
            unread.clone(),
            rights.clone(),
            composing.clone(),
        );
        tasks.spawn("chat events", events.run(self.bus.clone(), tasks.clone()));
        tasks.spawn("chat rights", rights.run(self.db.clone(), tasks.clone()));
        let standings = Standings::new(&self.bus, composing.clone(), self.metrics.clone());
        let comparing = standings.run(self.db.clone(), tasks.clone());
        tasks.spawn("chat standings", comparing);
        let telling = composing.run(self.db.clone(), tasks.clone());
        tasks.spawn("chat composing", telling);
        tasks.spawn("unread totals", unread.run(self.db.clone(), tasks.clone()));
        tasks.spawn("typing", self.typing.clone().run(tasks.clone()));
        let delivered = self.bus.delivered().clone();
        delivered.recognize(delivery::message_of);
        let writing = delivery::run(delivered, self.db.clone(), tasks.clone());
        tasks.spawn("deliveries", writing);
        let people = self.bus.people().clone();
        let reporter = PresenceReporter::new(self.db.clone(), people, config, metrics);
        tasks.spawn("presence reports", reporter.run(tasks.clone()));
    }
}
