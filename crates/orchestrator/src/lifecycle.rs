//! The life of a group as one state machine: which step leads from which state to which.
//!
//! Owns the table and nothing else: pure, without a database, a clock or a call. The directory asks
//! it before every change of a status, and what the change does to the organization's count follows
//! from the two states alone.

use convene_model::{Code, Problem, infra::GroupStatus};

use GroupStatus::{Active, Archived, Archiving, Deleted, Deleting, Idle, Restoring};

/// What can happen to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// A snapshot from elsewhere is taken as its own.
    Adopt,
    /// It is activated: for the first time, or while it lives.
    Activate,
    /// It is in use again.
    Wake,
    /// Nobody uses it any more.
    FallAsleep,
    /// It is to be archived.
    BeginArchive,
    /// Its snapshot is written and verified.
    Mark,
    /// It is not archived after all.
    Thaw,
    /// It is to come back from its snapshot.
    BeginRestore,
    /// It has come back.
    FinishRestore,
    /// It does not come back this time.
    AbandonRestore,
    /// It is to be removed for good.
    BeginDelete,
    /// Nothing of it is left.
    FinishDelete,
}

/// A step that a group cannot take from where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a group that is {} cannot {}", from.map_or("inactive", GroupStatus::as_str), step.as_str())]
pub(crate) struct Illegal {
    pub(crate) from: Option<GroupStatus>,
    pub(crate) step: Step,
}

impl Step {
    /// Every step.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 12] = [
        Self::Adopt,
        Self::Activate,
        Self::Wake,
        Self::FallAsleep,
        Self::BeginArchive,
        Self::Mark,
        Self::Thaw,
        Self::BeginRestore,
        Self::FinishRestore,
        Self::AbandonRestore,
        Self::BeginDelete,
        Self::FinishDelete,
    ];

    /// The step in words, for logs and problems.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::Activate => "activate",
            Self::Wake => "wake",
            Self::FallAsleep => "fall_asleep",
            Self::BeginArchive => "begin_archive",
            Self::Mark => "mark_archived",
            Self::Thaw => "thaw",
            Self::BeginRestore => "begin_restore",
            Self::FinishRestore => "finish_restore",
            Self::AbandonRestore => "abandon_restore",
            Self::BeginDelete => "begin_delete",
            Self::FinishDelete => "finish_delete",
        }
    }

    /// Where the step leads from a state; `None` is a group without a record.
    ///
    /// # Errors
    /// [`Illegal`] when there is no such arrow.
    pub(crate) const fn from(self, from: Option<GroupStatus>) -> Result<GroupStatus, Illegal> {
        match (self, from) {
            (Self::Activate, None | Some(Active | Idle))
            | (Self::Wake, Some(Active | Idle))
            | (Self::Thaw, Some(Archiving))
            | (Self::FinishRestore, Some(Restoring)) => Ok(Active),
            (Self::FallAsleep, Some(Active | Idle)) => Ok(Idle),
            (Self::BeginArchive, Some(Active | Idle)) => Ok(Archiving),
            (Self::Adopt, None)
            | (Self::Mark, Some(Archiving))
            | (Self::AbandonRestore, Some(Restoring)) => Ok(Archived),
            (Self::BeginRestore, Some(Archived)) => Ok(Restoring),
            (Self::BeginDelete, Some(Active | Idle | Archiving | Archived | Restoring)) => {
                Ok(Deleting)
            }
            (Self::FinishDelete, Some(Deleting)) => Ok(Deleted),
            (
                Self::Adopt
                | Self::Activate
                | Self::Wake
                | Self::FallAsleep
                | Self::BeginArchive
                | Self::Mark
                | Self::Thaw
                | Self::BeginRestore
                | Self::FinishRestore
                | Self::AbandonRestore
                | Self::BeginDelete
                | Self::FinishDelete,
                None | Some(Active | Idle | Archiving | Archived | Restoring | Deleting | Deleted),
            ) => Err(Illegal { from, step: self }),
        }
    }

    /// Whether the step raises the group's epoch, so that whoever worked under the former one can
    /// do nothing any more.
    pub(crate) const fn raises_epoch(self) -> bool {
        match self {
            Self::Thaw | Self::BeginRestore | Self::AbandonRestore | Self::BeginDelete => true,
            Self::Adopt
            | Self::Activate
            | Self::Wake
            | Self::FallAsleep
            | Self::BeginArchive
            | Self::Mark
            | Self::FinishRestore
            | Self::FinishDelete => false,
        }
    }

    /// Whether the step needs a place under the organization's limit. A group that is removed needs
    /// none although it counts until it is gone.
    pub(crate) const fn needs_place(self) -> bool {
        match self {
            Self::Activate | Self::BeginRestore => true,
            Self::Adopt
            | Self::Wake
            | Self::FallAsleep
            | Self::BeginArchive
            | Self::Mark
            | Self::Thaw
            | Self::FinishRestore
            | Self::AbandonRestore
            | Self::BeginDelete
            | Self::FinishDelete => false,
        }
    }
}

impl From<Illegal> for Problem {
    fn from(illegal: Illegal) -> Self {
        let status = illegal.from.map_or("inactive", GroupStatus::as_str);
        Self::new(Code::IllegalTransition)
            .detail(illegal.to_string())
            .with("group_status", status)
            .with("step", illegal.step.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arrows of the design, written down a second time: step, from, to.
    const ARROWS: &[(Step, Option<GroupStatus>, GroupStatus)] = &[
        (Step::Adopt, None, Archived),
        (Step::Activate, None, Active),
        (Step::Activate, Some(Active), Active),
        (Step::Activate, Some(Idle), Active),
        (Step::Wake, Some(Active), Active),
        (Step::Wake, Some(Idle), Active),
        (Step::FallAsleep, Some(Active), Idle),
        (Step::FallAsleep, Some(Idle), Idle),
        (Step::BeginArchive, Some(Active), Archiving),
        (Step::BeginArchive, Some(Idle), Archiving),
        (Step::Mark, Some(Archiving), Archived),
        (Step::Thaw, Some(Archiving), Active),
        (Step::BeginRestore, Some(Archived), Restoring),
        (Step::FinishRestore, Some(Restoring), Active),
        (Step::AbandonRestore, Some(Restoring), Archived),
        (Step::BeginDelete, Some(Active), Deleting),
        (Step::BeginDelete, Some(Idle), Deleting),
        (Step::BeginDelete, Some(Archiving), Deleting),
        (Step::BeginDelete, Some(Archived), Deleting),
        (Step::BeginDelete, Some(Restoring), Deleting),
        (Step::FinishDelete, Some(Deleting), Deleted),
    ];

    fn states() -> impl Iterator<Item = Option<GroupStatus>> {
        std::iter::once(None).chain(GroupStatus::ALL.map(Some))
    }

    #[test]
    fn every_pair_of_step_and_state_is_an_arrow_of_the_design_or_refused() {
        for step in Step::ALL {
            for from in states() {
                let arrow = ARROWS.iter().find(|(s, f, _)| (*s, *f) == (step, from));
                let expected = arrow.map(|(_, _, to)| *to).ok_or(Illegal { from, step });
                assert_eq!(step.from(from), expected, "{step:?} from {from:?}");
            }
        }
    }

    #[test]
    fn a_tombstone_stays_for_ever() {
        for step in Step::ALL {
            assert!(step.from(Some(Deleted)).is_err(), "{step:?}");
        }
    }

    #[test]
    fn what_begins_to_count_beyond_a_removal_needs_a_place() {
        for (step, from, to) in ARROWS {
            let counted = from.is_some_and(GroupStatus::counts);
            let begins = to.counts() && !counted && *to != Deleting;
            assert!(!begins || step.needs_place(), "{step:?} from {from:?}");
        }
    }

    #[test]
    fn whoever_worked_on_a_group_before_a_thaw_a_restore_or_a_delete_has_a_stale_epoch() {
        let raising: Vec<_> = Step::ALL.into_iter().filter(|step| step.raises_epoch()).collect();
        assert_eq!(
            raising,
            [Step::Thaw, Step::BeginRestore, Step::AbandonRestore, Step::BeginDelete]
        );
    }

    #[test]
    fn a_refusal_names_the_state_and_the_step() {
        let illegal = Step::BeginRestore.from(None).expect_err("there is nothing to restore");
        let problem = Problem::from(illegal);
        assert_eq!(problem.code, Code::IllegalTransition);
        assert_eq!(problem.extra["group_status"], "inactive");
        assert_eq!(problem.extra["step"], "begin_restore");
    }
}
