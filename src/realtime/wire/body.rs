//! The bytes of a frame that the queues of many sockets can share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that several frames can share. They occupy memory once, so they are counted once: from the
/// first queued frame that contains them until the last one is released. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Body(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    bytes: Vec<u8>,
    /// Number of queued frames that contain these bytes.
    queued: AtomicUsize,
}

impl Body {
    /// Counts another queued frame with these bytes. Returns the memory that this adds, which is
    /// zero if another queued frame already contains the bytes.
    pub fn retain(&self) -> usize {
        match &self.0 {
            Some(shared) if shared.queued.fetch_add(1, Ordering::Relaxed) == 0 => shared.memory(),
            _ => 0,
        }
    }

    /// Reverts one call of [`Body::retain`]. Returns the memory that this frees, which is zero if
    /// other queued frames still contain the bytes.
    pub fn release(&self) -> usize {
        match &self.0 {
            Some(shared) if shared.queued.fetch_sub(1, Ordering::Relaxed) == 1 => shared.memory(),
            _ => 0,
        }
    }
}

impl Shared {
    fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        let queued = AtomicUsize::new(0);
        Self((!bytes.is_empty()).then(|| Arc::new(Shared { bytes, queued })))
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Some(shared) => &shared.bytes,
            None => &[],
        }
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Body {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_bytes_count_once_for_any_number_of_queued_frames() {
        let body = Body::from(vec![b'x'; 1_000]);
        let (first, second) = (body.clone(), body.clone());
        let counted = first.retain();
        assert!(counted >= 1_000);
        assert_eq!((second.retain(), first.release()), (0, 0));
        assert_eq!(second.release(), counted);
        assert_eq!((body.retain(), body.release()), (counted, counted));
        let nothing = Body::default();
        assert_eq!(
            (nothing.retain(), nothing.release(), &*nothing),
            (0, 0, &[][..])
        );
    }
}
