//! Choosing a group: by its id, or by some letters of its title.

use nucleo_matcher::{
    Config, Matcher,
    pattern::{CaseMatching, Normalization, Pattern},
};

use crate::{ChatError, api::Group};

/// The list of groups with a filter over it.
#[derive(Debug)]
pub(crate) struct Picker {
    groups: Vec<Group>,
    pub(crate) filter: String,
    pub(crate) chosen: usize,
}

impl Picker {
    pub(crate) fn new(groups: Vec<Group>) -> Self {
        Self { groups, filter: String::new(), chosen: 0 }
    }

    /// The groups that fit the filter, the best first.
    pub(crate) fn shown(&self) -> Vec<&Group> {
        matching(&self.groups, &self.filter)
    }

    pub(crate) fn type_char(&mut self, c: char) {
        self.filter.push(c);
        self.chosen = 0;
    }

    pub(crate) fn backspace(&mut self) {
        self.filter.pop();
        self.chosen = 0;
    }

    pub(crate) fn move_by(&mut self, lines: isize) {
        let last = self.shown().len().saturating_sub(1);
        self.chosen = self.chosen.saturating_add_signed(lines).min(last);
    }

    pub(crate) fn choose(&self) -> Option<Group> {
        self.shown().get(self.chosen).map(|group| (*group).clone())
    }
}

/// The groups whose title or workspace fits `filter`, the best first; all of them without one.
fn matching<'a>(groups: &'a [Group], filter: &str) -> Vec<&'a Group> {
    if filter.trim().is_empty() {
        return groups.iter().collect();
    }
    let mut matcher = Matcher::new(Config::DEFAULT);
    let pattern = Pattern::parse(filter, CaseMatching::Ignore, Normalization::Smart);
    let mut scored: Vec<_> = groups
        .iter()
        .filter_map(|group| {
            let name = format!("{} {}", group.title, group.org);
            let mut buffer = Vec::new();
            let text = nucleo_matcher::Utf32Str::new(&name, &mut buffer);
            Some((pattern.score(text, &mut matcher)?, group))
        })
        .collect();
    scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    scored.into_iter().map(|(_, group)| group).collect()
}

/// The one group that is meant by an id, by its exact title, or by letters that fit one alone.
pub(crate) fn find(groups: &[Group], wanted: &str) -> Result<Group, ChatError> {
    let exact = groups.iter().find(|group| group.group_id.as_str() == wanted);
    let lower = wanted.to_lowercase();
    let titled: Vec<_> = groups.iter().filter(|g| g.title.to_lowercase() == lower).collect();
    let like = matching(groups, wanted);
    match (exact, &titled[..], &like[..]) {
        (Some(group), ..) => Ok(group.clone()),
        (None, [group], _) | (None, [], [group]) => Ok((*group).clone()),
        (None, [], []) => Err(ChatError::said(format!("you have no group like {wanted:?}"))),
        (None, [], several) | (None, several, _) => {
            let names: Vec<_> = several
                .iter()
                .take(5)
                .map(|group| format!("{} ({}, {})", group.title, group.org, group.group_id))
                .collect();
            Err(ChatError::said(format!("{wanted:?} fits several groups: {}", names.join("; "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use convene_model::{GroupId, OrgId};

    use super::*;

    fn groups() -> Vec<Group> {
        [("g1", "Plans"), ("g2", "Plans for spring"), ("g3", "Kitchen"), ("g4", "Kit")]
            .map(|(id, title)| Group {
                group_id: GroupId::new(id).unwrap(),
                org_id: OrgId::new("o").unwrap(),
                org: "Lighthouse".to_owned(),
                title: title.to_owned(),
                unread: 0,
                mentions: 0,
                muted: false,
                read_up_to: None,
                last_at: 0,
            })
            .to_vec()
    }

    #[test]
    fn a_group_is_found_by_id_title_or_letters_that_fit_one_alone() {
        let found = |wanted: &str| find(&groups(), wanted).map(|g| g.group_id.as_str().to_owned());
        assert_eq!(found("g3").unwrap(), "g3");
        assert_eq!(found("plans").unwrap(), "g1");
        assert_eq!(found("sprng").unwrap(), "g2");
        assert_eq!(found("kit").unwrap(), "g4");
        assert!(found("plan").unwrap_err().to_string().contains("several"));
        assert!(found("zebra").unwrap_err().to_string().contains("no group"));
    }

    #[test]
    fn typing_narrows_the_list_and_moving_stays_inside_it() {
        let mut picker = Picker::new(groups());
        picker.move_by(100);
        assert_eq!(picker.choose().unwrap().title, "Kit");
        for c in "kitch".chars() {
            picker.type_char(c);
        }
        assert_eq!(picker.shown().len(), 1);
        assert_eq!(picker.choose().unwrap().title, "Kitchen");
        picker.type_char('z');
        assert!(picker.choose().is_none());
        picker.backspace();
        picker.move_by(-1);
        assert_eq!(picker.choose().unwrap().title, "Kitchen");
    }
}
