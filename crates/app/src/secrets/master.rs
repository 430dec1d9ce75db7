//! The master keys: one wraps every new data key, but for organizations that have brought one of their own;
//! former ones still open what they wrapped.
//!
//! They come from the host, which may read them anew: an operator changes the master key beside a
//! running App. Nothing here is stored.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, PoisonError, RwLock},
};

use convene_model::OrgId;
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
    /// The keys that organizations have brought: each wraps what is its organization's, in place of the one
    /// above.
    pub own: BTreeMap<OrgId, Zeroizing<[u8; 32]>>,
    /// Still open what they wrapped.
    pub retired: Vec<Zeroizing<[u8; 32]>>,
}

impl MasterKeys {
    /// One key without predecessors.
    #[must_use]
    pub fn only(current: Zeroizing<[u8; 32]>) -> Self {
        Self { current, own: BTreeMap::new(), retired: Vec::new() }
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

/// All master keys that are known.
pub(super) struct Masters {
    reader: MasterKeyReader,
    known: RwLock<Known>,
}

struct Known {
    /// The one in use first.
    all: Vec<Master>,
    own: BTreeMap<OrgId, Master>,
}

impl Masters {
    pub(super) fn new(reader: MasterKeyReader, keys: &MasterKeys) -> Self {
        Self { reader, known: RwLock::new(Known::of(keys)) }
    }

    /// The key in use for an organization, read anew: what is wrapped now must open for whoever reads it
    /// next.
    pub(super) fn current(&self, org: &OrgId) -> Master {
        self.reload();
        self.in_use(org)
    }

    /// The key in use for an organization, as it was read last.
    pub(super) fn in_use(&self, org: &OrgId) -> Master {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let all = known.all.first().expect("there is always a key in use");
        known.own.get(org).unwrap_or(all).clone()
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
        self.known.read().unwrap_or_else(PoisonError::into_inner).all.clone()
    }

    fn known(&self, id: &str) -> Option<Master> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.all.iter().find(|master| master.id == id).cloned()
    }

    pub(super) fn reload(&self) {
        match (self.reader)() {
            Ok(keys) => {
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known::of(&keys);
            }
            Err(error) => tracing::error!(error, "the master keys cannot be read anew"),
        }
    }
}

impl Known {
    fn of(keys: &MasterKeys) -> Self {
        let MasterKeys { current, own, retired } = keys;
        let all = std::iter::once(current).chain(own.values()).chain(retired);
        Self {
            all: all.map(|key| Master::of(key)).collect(),
            own: own.iter().map(|(org, key)| (org.clone(), Master::of(key))).collect(),
        }
    }
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
        *keys.lock().unwrap() = MasterKeys {
            retired: vec![Zeroizing::new([1; 32])],
            ..MasterKeys::only(Zeroizing::new([2; 32]))
        };
        assert_eq!(masters.find(&second).unwrap().id, second);
        assert_eq!(masters.find(&first).unwrap().id, first);
        let (o1, o2) = (OrgId::new("o1").unwrap(), OrgId::new("o2").unwrap());
        assert_eq!(masters.current(&o1).id, second);
        keys.lock().unwrap().own.insert(o1.clone(), Zeroizing::new([3; 32]));
        assert_eq!(masters.current(&o1).id, master_key_id(&[3; 32]), "its own");
        assert_eq!(masters.current(&o2).id, second);
    }

    #[test]
    fn a_name_tells_keys_apart_and_is_no_part_of_the_key() {
        assert_eq!(master_key_id(&[1; 32]).len(), 2 * ID_BYTES);
        assert_ne!(master_key_id(&[1; 32]), master_key_id(&[2; 32]));
        assert!(!master_key_id(&[1; 32]).contains("0101"));
    }
}
