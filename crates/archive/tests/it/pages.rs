//! Pages from a snapshot against a plain reading of all its lines.

use std::{collections::HashSet, sync::Arc};

use convene_archive::{ArchiveError, page};
use convene_model::{
    archive::Line,
    history::{FinishedRun, HistoryPage, HistoryQuery, Message},
};
use proptest::prelude::*;

use crate::sample::{Sample, block_on, happens, small_members, store};

/// The page by its definition: lists all messages and picks.
fn expected(sample: &Sample, query: HistoryQuery) -> HistoryPage {
    let limit = query.page_size().unwrap();
    let head = sample.frozen.last_seq;
    let messages: Vec<&Message> = sample
        .messages
        .iter()
        .filter_map(|line| match line {
            Line::Message(line) => Some(&line.message),
            _ => None,
        })
        .collect();
    let runs = sample.messages.iter().filter_map(|line| match line {
        Line::Run(line) => Some(line.run.clone()),
        _ => None,
    });
    let upto = |seq: u64| messages.partition_point(|message| message.seq <= seq);
    // The page is messages[begin..end]; runs come after `low` and up to `high`.
    let (begin, end, high, low_if_empty);
    if let Some(around) = query.around {
        let middle = upto(around.saturating_sub(1));
        begin = middle.saturating_sub(limit / 2);
        end = (middle + limit - limit / 2).min(messages.len());
        high = messages.get(end).map_or(head, |next| next.seq);
        low_if_empty = begin.checked_sub(1).map_or(0, |at| messages[at].seq);
    } else if let (Some(after), None) = (query.after, query.before) {
        begin = upto(after);
        end = (begin + limit).min(messages.len());
        high = messages.get(end).map_or(head, |next| next.seq);
        low_if_empty = after;
    } else {
        let last = query.before.map_or(head, |before| before.saturating_sub(1));
        end = upto(last);
        let after = query.after.unwrap_or(0);
        begin = end.saturating_sub(limit).max(upto(after)).min(end);
        high = last;
        low_if_empty = after;
    }
    let low = match (begin, messages.get(begin).filter(|_| begin < end)) {
        (0, _) => 0,
        (_, Some(first)) => first.seq,
        (_, None) => low_if_empty,
    };
    let low = if query.after.is_some() && query.before.is_none() && query.around.is_none() {
        low.max(query.after.unwrap_or(0))
    } else {
        low
    };
    let runs: Vec<FinishedRun> = runs.filter(|run| run.seq > low && run.seq <= high).collect();
    let page = &messages[begin..end];
    let mut known: HashSet<_> = page.iter().map(|message| &message.posted.message_id).collect();
    let mut answered = Vec::new();
    for line in &sample.messages {
        let Line::Message(line) = line else { continue };
        if !page.iter().any(|message| message.seq == line.seq) || line.message.deleted {
            continue;
        }
        if line.message.posted.reply_to.as_ref().is_some_and(|id| known.insert(id)) {
            answered.extend(line.answers.clone());
        }
    }
    HistoryPage {
        messages: page.iter().map(|message| (*message).clone()).collect(),
        runs,
        answered,
        more_before: begin > 0,
        more_after: end < messages.len(),
        head,
        history: sample.frozen.history.clone(),
    }
}

fn query() -> impl Strategy<Value = HistoryQuery> {
    let seq = || proptest::option::of(0_u64..90);
    (seq(), seq(), proptest::option::weighted(0.3, 0_u64..90), proptest::option::of(1_usize..30))
        .prop_map(|(before, after, around, limit)| match around {
            Some(_) => HistoryQuery { around, limit, ..HistoryQuery::default() },
            None => HistoryQuery { before, after, around, limit },
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_page_is_the_one_that_the_whole_snapshot_says(
        story in proptest::collection::vec(happens(), 1..80),
        queries in proptest::collection::vec(query(), 8),
        member_bytes in prop_oneof![Just(1_usize), 300_usize..3000],
    ) {
        // A run comes after the message that began it.
        let mut story = story;
        story.insert(0, crate::sample::Happens::Post {
            text: "first".into(), answers: None, deleted: false,
        });
        let sample = Sample::of(&story);
        block_on(async {
            let store = store();
            let options = convene_archive::WriteOptions { member_bytes, ..small_members() };
            let manifest = sample.write(&store, options).await.unwrap();
            for query in queries {
                let got = page(Arc::clone(&store), &manifest, query).await.unwrap();
                assert_eq!(got, expected(&sample, query), "{query:?}");
            }
        });
    }
}

#[test]
fn a_page_size_beyond_the_limit_is_refused() {
    block_on(async {
        let store = store();
        let manifest = Sample::with_messages(3).write(&store, small_members()).await.unwrap();
        for limit in [0, 201] {
            let query = HistoryQuery { limit: Some(limit), ..HistoryQuery::default() };
            let refused = page(Arc::clone(&store), &manifest, query).await;
            assert!(matches!(refused, Err(ArchiveError::PageSize(_))), "{refused:?}");
        }
    });
}
