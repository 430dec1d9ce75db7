//! The deadlines of groups that sleep. A group that is awake keeps its own.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use convene_model::{GroupId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Controllers, Shared};

/// How long the task sleeps at most: the injected clock and the timer's may drift apart.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How long it waits before it tries again to wake a group that could not be woken.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Which groups are to be woken, and when. What stands here stands in the store as well.
#[derive(Default)]
pub(super) struct Alarms {
    set: Mutex<BTreeSet<(Timestamp, GroupId)>>,
    changed: Notify,
    is_kept: AtomicBool,
}

impl Alarms {
    /// Lets a group be woken. An alarm of a group that was woken before does no harm.
    pub(super) fn set(&self, shared: &Arc<Shared>, at: Timestamp, group_id: GroupId) {
        self.set.lock().insert((at, group_id));
        if self.is_kept.swap(true, Ordering::Relaxed) {
            self.changed.notify_one();
        } else {
            shared.tasks.spawn(keep(Controllers { shared: Arc::clone(shared) }));
        }
    }

    fn first(&self) -> Option<Timestamp> {
        self.set.lock().first().map(|(at, _)| *at)
    }

    fn take_due(&self, now: Timestamp) -> Vec<GroupId> {
        let mut set = self.set.lock();
        let mut due = Vec::new();
        while set.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(set.pop_first().map(|(_, group_id)| group_id));
        }
        due
    }
}

/// Wakes groups at their deadlines until the node stops.
async fn keep(controllers: Controllers) {
    let shared = &controllers.shared;
    loop {
        let now = (shared.clock)();
        for group_id in shared.alarms.take_due(now) {
            if let Err(problem) = controllers.mailbox(&group_id).await {
                tracing::warn!(group = %group_id, code = problem.code.as_str(), "a group with a deadline cannot wake");
                if problem.status >= 500 {
                    shared.alarms.set.lock().insert((now + AFTER_FAILURE, group_id));
                }
            }
        }
        let pause = shared.alarms.first().map_or(LOOK_AGAIN, |at| at.since((shared.clock)()));
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = shared.alarms.changed.notified() => {}
            () = tokio::time::sleep(pause.min(LOOK_AGAIN)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use axum::Router;
    use convene_hop::{Hop, Signer};
    use convene_model::{
        claims::service,
        infra::{HistoryMode, InitRequest},
        keys::{SigningKey, TrustedKeys},
    };
    use convene_storage::{GroupStore, StoreOptions};

    use super::*;
    use crate::controllers::ControllersConfig;

    #[tokio::test]
    async fn a_sleeping_group_is_woken_at_its_deadline_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            GroupStore::open(dir.path(), StoreOptions::default(), |why| panic!("{why}")).unwrap();
        let time = Arc::new(AtomicU64::new(1_800_000_000_000));
        let clock = Arc::clone(&time);
        let now = move || Timestamp::from_millis(clock.load(Ordering::Relaxed));
        let key = SigningKey::from_seed(service::CONTROLLERS, &[1; 32]);
        let config = ControllersConfig {
            signer: Signer::new(key, Arc::new(now)),
            orchestrator_keys: TrustedKeys::new(),
            agents: Hop::in_process(Router::new()),
            idle_after: Duration::from_millis(200),
        };
        let controllers = Controllers::new(store.clone(), config);
        let group_id: GroupId = "g1".parse().unwrap();
        let request = InitRequest {
            org_id: "o1".parse().unwrap(),
            history_mode: HistoryMode::Internal,
            epoch: 1,
            limits: convene_model::infra::GroupLimits::default(),
        };
        controllers.init(&group_id, request).await.unwrap();
        let asleep = async || {
            while controllers.awake() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        asleep().await;
        let shared = &controllers.shared;
        let later = Timestamp::from_millis(1_800_000_000_000 + 3_600_000);
        shared.alarms.set(shared, later, group_id.clone());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(controllers.awake(), 0);

        time.fetch_add(3_600_000, Ordering::Relaxed);
        let other: GroupId = "g2".parse().unwrap();
        // Any change lets the task look at its clock again.
        shared.alarms.set(shared, later + Duration::from_secs(60), other);
        while shared.alarms.first() == Some(later) || controllers.awake() == 0 {
            tokio::task::yield_now().await;
        }
        asleep().await;
        controllers.shutdown().await;
        store.close();
    }
}
