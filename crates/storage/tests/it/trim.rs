//! Texts that an organization's own service has leave the store, but for the newest.

use convene_model::{
    event::EventKind,
    limits::{MAX_PAGE, MAX_REPLAY_EVENTS},
};

use crate::support::{Group, commit, delete, edit, message, open, query, searching};

#[test]
fn acknowledged_texts_leave_and_everything_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    commit(&store, group.batch([message("m1", "zebra one"), message("m2", "zebra two")])).unwrap();
    commit(&store, group.batch([message("m3", "zebra three"), edit(3, "giraffe")])).unwrap();
    commit(&store, group.batch([message("m5", "zebra five"), delete(5)])).unwrap();
    store.settle_index();
    assert_eq!(store.search(group.key, &searching("zebra"), group.head()).unwrap().hits.len(), 2);

    let exported = |upto| EventKind::HistoryExported { upto };
    commit(&store, group.batch([exported(6)])).unwrap();
    store.settle();
    let page = store.history(group.key, query(None, None, 10), group.head()).unwrap();
    assert_eq!(page.messages[0].posted.text, "zebra one", "a client that returns is sent it");

    while group.head() < MAX_REPLAY_EVENTS + 5 {
        let many: Vec<_> =
            (0..64).map(|n| message(&format!("x{}-{n}", group.head()), "x")).collect();
        commit(&store, group.batch(many)).unwrap();
    }
    let at = group.head() + 1;
    commit(&store, group.batch([exported(at - 1)])).unwrap();
    store.settle();
    let check = |store: &convene_storage::GroupStore| {
        let page = store.history(group.key, query(Some(7), None, 10), group.head()).unwrap();
        let told: Vec<_> = page
            .messages
            .iter()
            .map(|message| (message.seq, message.posted.text.as_str(), message.deleted))
            .collect();
        assert_eq!(told, [(1, "", false), (2, "", false), (3, "", false), (5, "", true)]);
        assert!(page.messages[2].edited_at.is_some());
        let newest = store.history(group.key, query(None, None, MAX_PAGE), group.head()).unwrap();
        assert!(newest.messages.iter().all(|message| message.posted.text == "x"));
        for word in ["zebra", "giraffe"] {
            let found = store.search(group.key, &searching(word), group.head()).unwrap();
            assert_eq!(found.hits, [], "{word}");
        }
        store.load(group.key).unwrap().unwrap();
    };
    store.settle_index();
    check(&store);
    // An edit of what has left brings its new text.
    commit(&store, group.batch([edit(1, "okapi")])).unwrap();
    store.settle();
    let page = store.history(group.key, query(Some(2), None, 10), group.head()).unwrap();
    assert_eq!(page.messages[0].posted.text, "okapi");
    store.close();
    drop(store);
    let report = convene_storage::check::check(dir.path(), &mut |_| {}).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}
