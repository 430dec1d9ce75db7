//! How postings lie in bytes: which messages a word occurs in, and where in each.
//!
//! A *hit* is a message's number, as the distance from the one before it in its list, and the word's
//! positions in the message, each as the distance from the one before, doubled, and one more if
//! another follows. A *block* holds the hits of consecutive words; a word is written without what it
//! shares with the one before. A list that is too long for a block goes on in the next.
//!
//! Never touches a database.

use std::collections::HashMap;

/// Bytes at which a block is closed: with its key it fills a page of an overflow chain.
pub(super) const BLOCK_BYTES: usize = 4400;

/// What a number, a length or a word's entry needs beside its bytes, at most.
const OVERHEAD: usize = 30;

/// A block that contradicts itself.
#[derive(Debug)]
pub(super) struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a block of the search index is malformed")
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for rusqlite::Error {
    fn from(malformed: Malformed) -> Self {
        Self::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(malformed))
    }
}

/// The hits of a word, in the order of their messages.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct List {
    bytes: Vec<u8>,
    last: u64,
    last_position: u64,
    /// Where the last position is written.
    open: usize,
}

impl List {
    /// Notes that the word stands at a place of a message; both only grow.
    pub(super) fn add(&mut self, seq: u64, position: u64) {
        if self.bytes.is_empty() || self.last != seq {
            put(&mut self.bytes, seq - self.last);
            self.last = seq;
            self.last_position = 0;
        } else {
            self.bytes[self.open] |= 1;
        }
        self.open = self.bytes.len();
        put(&mut self.bytes, (position - self.last_position) << 1);
        self.last_position = position;
    }

    /// Adds a hit as it lies in another list.
    pub(super) fn push(&mut self, seq: u64, positions: &[u8]) {
        put(&mut self.bytes, seq - self.last);
        self.last = seq;
        self.bytes.extend_from_slice(positions);
    }

    /// Adds all hits of a list, whose messages come later.
    pub(super) fn append(&mut self, hits: &[u8]) -> Result<(), Malformed> {
        for hit in Hits::new(hits) {
            let (seq, positions) = hit?;
            if seq <= self.last {
                return Err(Malformed);
            }
            self.push(seq, positions);
        }
        Ok(())
    }

    pub(super) fn hits(&self) -> &[u8] {
        &self.bytes
    }

    /// The positions of the first hit as they lie there; nothing in an empty list.
    pub(super) fn first_positions(&self) -> Result<Vec<u8>, Malformed> {
        let first = Hits::new(&self.bytes).next().transpose()?;
        Ok(first.map_or_else(Vec::new, |(_, positions)| positions.to_vec()))
    }
}

/// Goes over the hits of a list: the message, and the positions as they lie there.
pub(super) struct Hits<'a> {
    bytes: &'a [u8],
    last: u64,
}

impl<'a> Hits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, last: 0 }
    }

    fn hit(&mut self) -> Option<(u64, &'a [u8])> {
        self.last = self.last.checked_add(take(&mut self.bytes)?)?;
        let positions = self.bytes;
        while take(&mut self.bytes)? & 1 == 1 {}
        Some((self.last, &positions[..positions.len() - self.bytes.len()]))
    }
}

impl<'a> Iterator for Hits<'a> {
    type Item = Result<(u64, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let hit = self.hit();
        if hit.is_none() {
            self.bytes = &[];
        }
        Some(hit.ok_or(Malformed))
    }
}

/// The positions of a hit.
pub(super) fn positions(mut bytes: &[u8]) -> impl Iterator<Item = u64> {
    let mut last = 0_u64;
    std::iter::from_fn(move || {
        last = last.checked_add(take(&mut bytes)? >> 1)?;
        Some(last)
    })
}

/// Goes over the words of a block, in order.
pub(super) struct Entries<'a> {
    bytes: &'a [u8],
    term: Vec<u8>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { bytes: body, term: Vec::new() }
    }

    /// The next word and its hits.
    pub(super) fn next(&mut self) -> Result<Option<(&str, &'a [u8])>, Malformed> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let hits = self.entry().ok_or(Malformed)?;
        let term = std::str::from_utf8(&self.term).map_err(|_| Malformed)?;
        Ok(Some((term, hits)))
    }

    fn entry(&mut self) -> Option<&'a [u8]> {
        let shared = usize::try_from(take(&mut self.bytes)?).ok()?;
        if shared > self.term.len() {
            return None;
        }
        self.term.truncate(shared);
        let rest = take_bytes(&mut self.bytes)?;
        self.term.extend_from_slice(rest);
        take_bytes(&mut self.bytes)
    }
}

/// A block, and the first of its postings, by which it is found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) term: String,
    pub(super) seq: u64,
    pub(super) body: Vec<u8>,
}

/// Puts words, given in order, into blocks.
#[derive(Default)]
pub(super) struct Blocks {
    done: Vec<Block>,
    open: Option<Block>,
    former: String,
}

impl Blocks {
    /// Adds a word with its hits.
    pub(super) fn add(&mut self, term: &str, hits: &[u8]) -> Result<(), Malformed> {
        if self.has_room(term, hits.len()) {
            return self.put_entry(term, hits);
        }
        let mut piece = List::default();
        for hit in Hits::new(hits) {
            let (seq, positions) = hit?;
            if !piece.bytes.is_empty()
                && !self.has_room(term, piece.bytes.len() + positions.len() + OVERHEAD)
            {
                self.put_entry(term, &std::mem::take(&mut piece).bytes)?;
                self.close();
            }
            piece.push(seq, positions);
        }
        self.put_entry(term, &piece.bytes)
    }

    pub(super) fn finish(mut self) -> Vec<Block> {
        self.close();
        self.done
    }

    fn has_room(&self, term: &str, bytes: usize) -> bool {
        let taken = self.open.as_ref().map_or(0, |block| block.body.len());
        taken + term.len() + bytes + OVERHEAD <= BLOCK_BYTES
    }

    fn put_entry(&mut self, term: &str, hits: &[u8]) -> Result<(), Malformed> {
        if self.open.as_ref().is_some_and(|block| block.body.len() >= BLOCK_BYTES) {
            self.close();
        }
        let Some((seq, _)) = Hits::new(hits).next().transpose()? else { return Ok(()) };
        let block = self.open.get_or_insert_with(|| {
            self.former.clear();
            Block { term: term.to_owned(), seq, body: Vec::new() }
        });
        let same = self.former.bytes().zip(term.bytes()).take_while(|(a, b)| a == b).count();
        put(&mut block.body, same as u64);
        put_bytes(&mut block.body, &term.as_bytes()[same..]);
        put_bytes(&mut block.body, hits);
        term.clone_into(&mut self.former);
        Ok(())
    }

    fn close(&mut self) {
        self.done.extend(self.open.take());
    }
}

/// The lists of many words.
#[derive(Default)]
pub(super) struct Lists {
    lists: HashMap<String, List>,
}

impl Lists {
    pub(super) fn add(&mut self, term: String, seq: u64, position: u64) {
        self.lists.entry(term).or_default().add(seq, position);
    }

    /// Adds what a block holds, whose messages come later than those of the same words so far.
    pub(super) fn append(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let mut entries = Entries::new(body);
        while let Some((term, hits)) = entries.next()? {
            match self.lists.get_mut(term) {
                Some(list) => list.append(hits)?,
                None => self.lists.entry(term.to_owned()).or_default().append(hits)?,
            }
        }
        Ok(())
    }

    pub(super) fn into_sorted(self) -> Vec<(String, List)> {
        let mut all: Vec<_> = self.lists.into_iter().collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    pub(super) fn into_blocks(self) -> Result<Vec<Block>, Malformed> {
        let mut blocks = Blocks::default();
        for (term, list) in self.into_sorted() {
            blocks.add(&term, list.hits())?;
        }
        Ok(blocks.finish())
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<String, BTreeMap<u64, Vec<u64>>>;

    fn lists(model: &Model) -> Lists {
        let mut lists = Lists::default();
        for (term, hits) in model {
            for (seq, places) in hits {
                for place in places {
                    lists.add(term.clone(), *seq, *place);
                }
            }
        }
        lists
    }

    fn read(blocks: &[Block]) -> Model {
        let mut model = Model::new();
        for block in blocks {
            let (mut entries, mut first) = (Entries::new(&block.body), true);
            while let Some((term, hits)) = entries.next().unwrap() {
                for hit in Hits::new(hits) {
                    let (seq, places) = hit.unwrap();
                    if std::mem::take(&mut first) {
                        assert_eq!((&*block.term, block.seq), (term, seq));
                    }
                    let of_term = model.entry(term.to_owned()).or_default();
                    assert_eq!(of_term.insert(seq, positions(places).collect()), None);
                }
            }
        }
        model
    }

    fn models() -> impl Strategy<Value = Model> {
        let places = prop::collection::btree_set(0_u64..100_000, 1..6)
            .prop_map(|places| places.into_iter().collect());
        let hits = prop::collection::btree_map(1_u64..1 << 40, places, 1..12);
        prop::collection::btree_map("[a-c]{1,3}|\\PC{1,4}", hits, 0..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_goes_into_blocks_comes_out_of_them_in_order(model in models()) {
            let blocks = lists(&model).into_blocks().unwrap();
            let keys: Vec<_> = blocks.iter().map(|block| (&block.term, block.seq)).collect();
            prop_assert!(keys.is_sorted());
            prop_assert_eq!(read(&blocks), model);
        }

        #[test]
        fn lists_of_earlier_and_later_messages_join(model in models(), at in 1_u64..1 << 40) {
            let part = |keep: &dyn Fn(u64) -> bool| {
                let mut part = model.clone();
                part.values_mut().for_each(|hits| hits.retain(|seq, _| keep(*seq)));
                lists(&part).into_blocks().unwrap()
            };
            let mut joined = Lists::default();
            for block in part(&|seq| seq < at).iter().chain(&part(&|seq| seq >= at)) {
                joined.append(&block.body).unwrap();
            }
            prop_assert_eq!(read(&joined.into_blocks().unwrap()), model);
        }

        #[test]
        fn bytes_of_any_kind_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut entries = Entries::new(&bytes);
            while let Ok(Some((_, hits))) = entries.next() {
                for (_, places) in Hits::new(hits).flatten() {
                    positions(places).for_each(drop);
                }
            }
            let _ = Lists::default().append(&bytes);
        }
    }

    #[test]
    fn a_long_list_is_cut_at_the_size_of_a_block() {
        let hits: BTreeMap<_, _> = (1..=20_000).map(|seq| (seq, vec![0])).collect();
        let model: Model = [("a".to_owned(), hits.clone()), ("b".to_owned(), hits)].into();
        let blocks = lists(&model).into_blocks().unwrap();
        assert!(blocks.len() > 15, "{}", blocks.len());
        for block in &blocks {
            assert!(block.body.len() <= BLOCK_BYTES, "{}", block.body.len());
        }
        assert_eq!(read(&blocks), model);
        // One hit is never cut.
        let many: BTreeMap<_, _> = [(1, (0..10_000).collect()), (2, vec![5])].into();
        let model: Model = [("a".to_owned(), many)].into();
        assert_eq!(read(&lists(&model).into_blocks().unwrap()), model);
    }
}
