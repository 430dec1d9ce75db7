//! The master keys: one wraps every new data key, former ones still open what they wrapped.
//!
//! They come from the host, which may read them anew: an operator changes the master key beside a
//! running App. Nothing here is stored.

use std::{
    fmt::Write as _,
    sync::{Arc, PoisonError, RwLock},
};

use zeroize::Zeroizing;

use super::cipher::Key;

const WRAPPING: &str = "convene app data keys v1";
const NAMING: &str = "convene app master key ids v1";
/// What sealed every secret directly before there were data keys.
const FIRST_FORM: &str = "convene app secrets v1";

/// Bytes of a master key's name that are shown.
const ID_BYTES: usize = 8;

/// The master key in use and its predecessors.
#[derive(Clone)]
pub struct MasterKeys {
    /// Wraps what is made from now on.
    pub current: Zeroizing<[u8; 32]>,
    /// Still open what they wrapped.
    pub retired: Vec<Zeroizing<[u8; 32]>>,
}

impl MasterKeys {
    /// One key without predecessors.
    #[must_use]
    pub fn only(current: Zeroizing<[u8; 32]>) -> Self {
        Self { current, retired: Vec::new() }
    }
}

/// Reads the master keys anew; the error is a sentence for the log.
pub type MasterKeyReader = Arc<dyn Fn() -> Result<MasterKeys, String> + Send + Sync>;

/// The public name of a master key: a digest that says nothing of the key.
#[must_use]
pub fn master_key_id(key: &[u8; 32]) -> String {
    let digest = blake3::derive_key(NAMING, key);
    digest[..ID_BYTES].iter().fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// One master key, ready for use.
#[derive(Clone)]
pub(super) struct Master {
    pub(super) id: String,
    pub(super) wrapping: Key,
    pub(super) first_form: Key,
}

impl Master {
    fn of(key: &[u8; 32]) -> Self {
        Self {
            id: master_key_id(key),
            wrapping: Key::derive(WRAPPING, key),
            first_form: Key::derive(FIRST_FORM, key),
        }
    }
}

/// All master keys that are known; the first one is in use.
pub(super) struct Masters {
    reader: MasterKeyReader,
    known: RwLock<Vec<Master>>,
}

impl Masters {
    pub(super) fn new(reader: MasterKeyReader, keys: &MasterKeys) -> Self {
        Self { reader, known: RwLock::new(list(keys)) }
    }

    /// The key in use, read anew: what is wrapped now must open for whoever reads it next.
    pub(super) fn current(&self) -> Master {
        self.reload();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.first().expect("there is always a key in use").clone()
    }

    /// A key by its id; one that is not known may have come since, so the keys are read anew.
    pub(super) fn find(&self, id: &str) -> Option<Master> {
        self.known(id).or_else(|| {
            self.reload();
            self.known(id)
        })
    }

    /// All keys, the one in use first.
    pub(super) fn all(&self) -> Vec<Master> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn known(&self, id: &str) -> Option<Master> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|master| master.id == id).cloned()
    }

    fn reload(&self) {
        match (self.reader)() {
            Ok(keys) => {
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = list(&keys);
            }
            Err(error) => tracing::error!(error, "the master keys cannot be read anew"),
        }
    }
}

fn list(keys: &MasterKeys) -> Vec<Master> {
    std::iter::once(&keys.current).chain(&keys.retired).map(|key| Master::of(key)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_key_that_came_since_is_found_and_a_missing_one_is_not() {
        let keys = Arc::new(Mutex::new(MasterKeys::only(Zeroizing::new([1; 32]))));
        let source = Arc::clone(&keys);
        let reader: MasterKeyReader = Arc::new(move || Ok(source.lock().unwrap().clone()));
        let masters = Masters::new(Arc::clone(&reader), &reader().unwrap());
        let (first, second) = (master_key_id(&[1; 32]), master_key_id(&[2; 32]));
        assert!(masters.find(&second).is_none());
        *keys.lock().unwrap() =
            MasterKeys { current: Zeroizing::new([2; 32]), retired: vec![Zeroizing::new([1; 32])] };
        assert_eq!(masters.find(&second).unwrap().id, second);
        assert_eq!(masters.find(&first).unwrap().id, first);
        assert_eq!(masters.current().id, second);
    }

    #[test]
    fn a_name_tells_keys_apart_and_is_no_part_of_the_key() {
        assert_eq!(master_key_id(&[1; 32]).len(), 2 * ID_BYTES);
        assert_ne!(master_key_id(&[1; 32]), master_key_id(&[2; 32]));
        assert!(!master_key_id(&[1; 32]).contains("0101"));
    }
}
