//! The classes of chat requests that share a rate limit.

use crate::config::ChatLimitsConfig;
use crate::requests::{self, Exemption, Rate, Rates};

/// The database access of the chat's handlers that write.
pub(super) type Writer = requests::Writer<Class>;

/// A class of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Sending messages.
    Send,
    /// Opening new conversations.
    Open,
    /// Marking as read or delivered.
    MarkRead,
    /// Reporting that the caller is typing.
    Typing,
    /// Searching.
    Search,
    /// Every other write.
    Write,
    /// Every other read.
    Read,
    /// Error reports of clients.
    ClientErrors,
}

impl requests::Class for Class {
    type Settings = ChatLimitsConfig;

    const READ: Self = Self::Read;

    const WRITE: Self = Self::Write;

    fn label(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Open => "open",
            Self::MarkRead => "mark_read",
            Self::Typing => "typing",
            Self::Search => "search",
            Self::Write => "write",
            Self::Read => "read",
            Self::ClientErrors => "client_errors",
        }
    }

    fn rates(self, settings: &ChatLimitsConfig) -> Rates {
        let per_second = |burst, count| [Rate::per_second(burst, count), None];
        let per_minute = |count| [Rate::per_minute(count), None];
        match self {
            Self::Send => [
                Rate::per_second(settings.send_burst, settings.send_per_second),
                Rate::per_minute(settings.send_per_minute),
            ],
            Self::Open => per_minute(settings.open_per_minute),
            Self::MarkRead => per_second(settings.mark_read_burst, settings.mark_read_per_second),
            Self::Typing => per_second(settings.typing_burst, settings.typing_per_second),
            Self::Search => per_minute(settings.search_per_minute),
            Self::Write => per_second(settings.write_burst, settings.write_per_second),
            Self::Read => per_second(settings.read_burst, settings.read_per_second),
            Self::ClientErrors => per_minute(settings.client_errors_per_minute),
        }
    }

    fn exemption(self) -> Exemption {
        match self {
            // A retry is also recognized by the message's `client_message_id`.
            Self::Send => Exemption::KeyOrId,
            Self::Open => Exemption::Existing,
            Self::MarkRead | Self::Typing | Self::Write => Exemption::Key,
            Self::Search | Self::Read | Self::ClientErrors => Exemption::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::Class as _;

    #[test]
    fn every_class_has_its_own_settings() {
        let settings = ChatLimitsConfig {
            send_burst: 1,
            send_per_second: 2,
            send_per_minute: 3,
            open_per_minute: 4,
            mark_read_burst: 5,
            mark_read_per_second: 6,
            typing_burst: 7,
            typing_per_second: 8,
            search_per_minute: 9,
            write_burst: 10,
            write_per_second: 11,
            read_burst: 12,
            read_per_second: 13,
            client_errors_per_minute: 14,
        };
        let (seconds, minute) = (Rate::per_second, Rate::per_minute);
        for (class, expected) in [
            (Class::Send, [seconds(1, 2), minute(3)]),
            (Class::Open, [minute(4), None]),
            (Class::MarkRead, [seconds(5, 6), None]),
            (Class::Typing, [seconds(7, 8), None]),
            (Class::Search, [minute(9), None]),
            (Class::Write, [seconds(10, 11), None]),
            (Class::Read, [seconds(12, 13), None]),
            (Class::ClientErrors, [minute(14), None]),
        ] {
            assert_eq!(class.rates(&settings), expected, "{class:?}");
        }
    }
}
