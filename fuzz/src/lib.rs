//! Code shared by all fuzz targets. It checks that the size of the input bounds the memory used.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of memory that a check may use per byte of input. The largest legitimate use is JSON like
/// `[{"":0},…`. Every few bytes of it become a map of several hundred bytes, and the checks hold a
/// few copies. The limit detects code that trusts a length in the input before its bytes have
/// arrived.
const BYTES_PER_BYTE: usize = 2_000;

/// Bytes that a check may use for empty input.
const BASE_BYTES: usize = 256 << 10;

/// Counts allocated bytes, and passes each allocation to [`System`].
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn grown(bytes: usize) {
    let in_use = IN_USE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(in_use, Ordering::Relaxed);
}

// SAFETY: every call is passed to `System` unchanged, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: guaranteed by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `check` on `data`.
///
/// # Panics
/// Panics if `check` uses more memory than allowed for an input of that size.
pub fn within_memory(data: &[u8], check: fn(&[u8])) {
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    check(data);
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let limit = BASE_BYTES + data.len() * BYTES_PER_BYTE;
    assert!(
        peak <= limit,
        "{peak} bytes of memory for {} bytes of input",
        data.len()
    );
}
