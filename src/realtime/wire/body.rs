//! The part of a frame that the queues of many sockets may share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that many frames may share. They take memory once, and so they count once among all that
/// waits: from the first frame with them that waits to the last. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Body(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    bytes: Vec<u8>,
    /// Frames with these bytes that wait.
    waiting: AtomicUsize,
}

impl Body {
    /// Another frame with these bytes waits. Returns the memory that waits because of it: none
    /// where they wait already.
    pub fn wait(&self) -> usize {
        match &self.0 {
            Some(shared) if shared.waiting.fetch_add(1, Ordering::Relaxed) == 0 => shared.memory(),
            _ => 0,
        }
    }

    /// A frame for which [`Body::wait`] was called waits no longer. Returns the memory that is let
    /// go with it: none while others wait.
    pub fn release(&self) -> usize {
        match &self.0 {
            Some(shared) if shared.waiting.fetch_sub(1, Ordering::Relaxed) == 1 => shared.memory(),
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
        let waiting = AtomicUsize::new(0);
        Self((!bytes.is_empty()).then(|| Arc::new(Shared { bytes, waiting })))
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
    fn bytes_count_once_however_many_frames_wait() {
        let body = Body::from(vec![b'x'; 1_000]);
        let (first, second) = (body.clone(), body.clone());
        let counted = first.wait();
        assert!(counted >= 1_000);
        assert_eq!((second.wait(), first.release()), (0, 0));
        assert_eq!(second.release(), counted);
        assert_eq!((body.wait(), body.release()), (counted, counted));
        let nothing = Body::default();
        assert_eq!(
            (nothing.wait(), nothing.release(), &*nothing),
            (0, 0, &[][..])
        );
    }
}
