//! How often somebody may use the chat routes. Per process: several behind one balancer allow as many times as much.

use super::reader::Reader;

/// `[chat_limits]`. A rate of 0 is no limit.
#[derive(Clone, Debug)]
pub struct ChatLimitsConfig {
    /// Messages that one person may send at once.
    pub send_burst: u32,
    /// Messages per second in the long run.
    pub send_per_second: u32,
    /// Messages per minute, besides.
    pub send_per_minute: u32,
    /// New conversations per minute.
    pub open_per_minute: u32,
    /// Requests to mark as read at once.
    pub mark_read_burst: u32,
    /// The same per second in the long run.
    pub mark_read_per_second: u32,
    /// Typing notices at once.
    pub typing_burst: u32,
    /// The same per second in the long run.
    pub typing_per_second: u32,
    /// Searches per minute.
    pub search_per_minute: u32,
    /// Other writes at once.
    pub write_burst: u32,
    /// The same per second in the long run.
    pub write_per_second: u32,
    /// Other reads at once.
    pub read_burst: u32,
    /// The same per second in the long run.
    pub read_per_second: u32,
    /// Error reports per minute.
    pub client_errors_per_minute: u32,
}

impl ChatLimitsConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut burst = |key| reader.whole(key, 1..=1_000_000);
        let (send_burst, mark_read_burst, typing_burst, write_burst, read_burst) = (
            burst("chat_limits.send_burst"),
            burst("chat_limits.mark_read_burst"),
            burst("chat_limits.typing_burst"),
            burst("chat_limits.write_burst"),
            burst("chat_limits.read_burst"),
        );
        let mut rate = |key| reader.whole(key, 0..=1_000_000);
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
