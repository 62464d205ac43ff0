//! The log of one test.
//!
//! One subscriber serves the whole process and assigns each line to the thread that wrote it. A
//! subscriber per thread would miss lines, because while it is the only one, tracing permanently
//! disables a callsite that another thread reaches first.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

thread_local! {
    /// The log lines of this thread, if it collects them.
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

static INSTALLED: Once = Once::new();

/// Collects everything that this thread logs at level `info` and above. A test's server runs on the
/// test's thread.
pub(crate) struct Log(());

impl Log {
    /// Starts to collect the log.
    pub(crate) fn of_this_thread() -> Self {
        INSTALLED.call_once(|| {
            let subscriber = tracing_subscriber::fmt()
                .with_writer(|| ThisThread)
                .with_ansi(false)
                .finish();
            tracing::subscriber::set_global_default(subscriber)
                .expect("no test sets up a log of its own");
            // Enables callsites that were reached between the creation of the subscriber and its
            // installation.
            tracing::callsite::rebuild_interest_cache();
        });
        LINES.set(Some(Vec::new()));
        Self(())
    }

    /// Returns the log so far.
    pub(crate) fn text(&self) -> String {
        LINES.with_borrow(|lines| String::from_utf8(lines.clone().unwrap_or_default()).unwrap())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        LINES.set(None);
    }
}

struct ThisThread;

impl io::Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
