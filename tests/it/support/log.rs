//! What one test logs.
//!
//! One subscriber for the whole process, whose lines go to the thread that wrote them. A
//! subscriber of one thread's own would miss lines: while it is the only one there is, a place
//! in the code that another thread reaches first is marked as watched by nobody, for good.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

thread_local! {
    /// The lines of a thread that asked for them.
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

static INSTALLED: Once = Once::new();

/// Everything that is logged on this thread, from `info` on. A test's server runs on its thread.
pub(crate) struct Log(());

impl Log {
    /// Begins to keep what is logged.
    pub(crate) fn of_this_thread() -> Self {
        INSTALLED.call_once(|| {
            let subscriber = tracing_subscriber::fmt()
                .with_writer(|| ThisThread)
                .with_ansi(false)
                .finish();
            tracing::subscriber::set_global_default(subscriber)
                .expect("no test sets up a log of its own");
            // A place that was reached between the making of the subscriber and its installation.
            tracing::callsite::rebuild_interest_cache();
        });
        LINES.set(Some(Vec::new()));
        Self(())
    }

    /// What was logged so far.
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
