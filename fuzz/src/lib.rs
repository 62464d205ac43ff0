//! What all targets have in common: memory is bounded by the size of the input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of memory that a check may need for each byte of its input. The largest legitimate use is
/// JSON like `[{"":0},…`, of which every few bytes become a map of several hundred; the checks hold a
/// few copies of that. What this finds is a length in the input that is believed before its
/// bytes are there.
const BYTES_PER_BYTE: usize = 2_000;

/// Bytes that a check may need for no input at all.
const BASE_BYTES: usize = 256 << 10;

/// Counts what is allocated; [`System`] does the work.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn grown(bytes: usize) {
    let in_use = IN_USE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(in_use, Ordering::Relaxed);
}

// SAFETY: every call goes to `System` as it came; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `check` on `data`.
///
/// # Panics
/// When it takes more memory than an input of that size may.
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
