//! Rate limits of the chat routes, per user and process. Several processes behind one load balancer
//! together allow each user a multiple of these rates.

use super::reader::Reader;

/// `[chat_limits]`. A rate of 0 disables the limit.
#[derive(Clone, Debug)]
pub struct ChatLimitsConfig {
    /// Burst of messages.
    pub send_burst: u32,
    /// Sustained messages per second.
    pub send_per_second: u32,
    /// Messages per minute. This limit applies in addition to the one per second.
    pub send_per_minute: u32,
    /// New conversations per minute.
    pub open_per_minute: u32,
    /// Burst of requests to mark as read.
    pub mark_read_burst: u32,
    /// Sustained requests to mark as read per second.
    pub mark_read_per_second: u32,
    /// Burst of typing notices.
    pub typing_burst: u32,
    /// Sustained typing notices per second.
    pub typing_per_second: u32,
    /// Searches per minute.
    pub search_per_minute: u32,
    /// Burst of other writes.
    pub write_burst: u32,
    /// Sustained other writes per second.
    pub write_per_second: u32,
    /// Burst of other reads.
    pub read_burst: u32,
    /// Sustained other reads per second.
    pub read_per_second: u32,
    /// Error reports per minute.
    pub client_errors_per_minute: u32,
}

impl ChatLimitsConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut burst = |key| reader.integer(key, 1..=1_000_000);
        let (send_burst, mark_read_burst, typing_burst, write_burst, read_burst) = (
            burst("chat_limits.send_burst"),
            burst("chat_limits.mark_read_burst"),
            burst("chat_limits.typing_burst"),
            burst("chat_limits.write_burst"),
            burst("chat_limits.read_burst"),
        );
        let mut rate = |key| reader.integer(key, 0..=1_000_000);
        Self {
            send_burst,
            send_per_second: rate("chat_limits.send_per_second"),
            send_per_minute: rate("chat_limits.send_per_minute"),
            open_per_minute: rate("chat_limits.open_per_minute"),
            mark_read_burst,
            mark_read_per_second: rate("chat_limits.mark_read_per_second"),
            typing_burst,
            typing_per_second: rate("chat_limits.typing_per_second"),
            search_per_minute: rate("chat_limits.search_per_minute"),
            write_burst,
            write_per_second: rate("chat_limits.write_per_second"),
            read_burst,
            read_per_second: rate("chat_limits.read_per_second"),
            client_errors_per_minute: rate("chat_limits.client_errors_per_minute"),
        }
    }
}
