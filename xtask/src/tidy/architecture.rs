//! `ARCHITECTURE.md` and the other pages name what exists: crates, decision records, linked files.

use crate::process::{Context, Result};
use crate::workspace::Workspace;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const PAGE: &str = "ARCHITECTURE.md";
const RECORDS: &str = "docs/adr";

pub(super) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let root = &workspace.root;
    let page = root.join(PAGE);
    if !page.is_file() {
        return Ok(vec![format!("{PAGE} is missing")]);
    }
    let text = std::fs::read_to_string(&page).context(page.display())?;
    let named = crates(&text);
    let existing = folders(&root.join("crates"))?;
    let mut findings = Vec::new();
    for name in named.difference(&existing) {
        findings.push(format!("{PAGE} names crates/{name}, which does not exist"));
    }
    for name in existing.difference(&named) {
        findings.push(format!("{PAGE} does not name crates/{name}"));
    }
    for record in records(&text) {
        if !root.join(RECORDS).join(&record).is_file() {
            findings.push(format!("{PAGE} names {RECORDS}/{record}, which does not exist"));
        }
    }
    for page in pages(root)? {
        let text = std::fs::read_to_string(root.join(&page)).context(page.display())?;
        let folder = page.parent().unwrap_or(Path::new(""));
        for link in links(&text) {
            if !root.join(folder).join(&link).exists() {
                findings.push(format!("{}: the link to {link} leads nowhere", page.display()));
            }
        }
    }
    Ok(findings)
}

/// The crates that a page names: `crates/<name>` anywhere, or an entry of a folder tree below a
/// line `crates/`.
fn crates(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for part in text.split("crates/").skip(1) {
        let name: String = part.chars().take_while(|c| is_name(*c)).collect();
        if !name.is_empty() {
            names.insert(name);
        }
    }
    // The indentation of the entries right below `crates/`, while inside such a tree.
    let mut tree: Option<usize> = None;
    let mut below_crates = false;
    for line in text.lines() {
        let entry = line.trim_start();
        let indent = line.len() - entry.len();
        if entry.trim_end() == "crates/" {
            below_crates = true;
            tree = None;
        } else if below_crates {
            if indent == 0 {
                below_crates = false;
            } else if indent == *tree.get_or_insert(indent)
                && let Some((name, _)) = entry.split_once('/')
                && name.chars().all(is_name)
            {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

fn is_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

/// The file names of the decision records that a page names.
fn records(text: &str) -> BTreeSet<String> {
    let files = text.split("adr/").skip(1).filter_map(|part| {
        let name: String = part.chars().take_while(|c| is_name(*c) || *c == '.').collect();
        let end = name.find(".md")?;
        Some(name[..end + ".md".len()].to_owned())
    });
    files.collect()
}

/// Targets of Markdown links into this repository, without their anchors.
fn links(text: &str) -> BTreeSet<String> {
    let mut links = BTreeSet::new();
    for part in text.split("](").skip(1) {
        let Some((target, _)) = part.split_once(')') else { continue };
        let target = target.split('#').next().unwrap_or_default();
        let outside = target.contains("://") || target.starts_with("mailto:");
        if !outside && !target.is_empty() && !target.contains(char::is_whitespace) {
            links.insert(target.to_owned());
        }
    }
    links
}

/// The Markdown pages of the root and of `docs/`, relative to the root.
fn pages(root: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for folder in ["", "docs", RECORDS] {
        let full = root.join(folder);
        if !full.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&full).context(full.display())? {
            let name = entry.context(full.display())?.file_name();
            let page = Path::new(folder).join(name);
            if page.extension().is_some_and(|extension| extension == "md") {
                pages.push(page);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

fn folders(parent: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(parent).context(parent.display())? {
        let entry = entry.context(parent.display())?;
        if entry.path().join("Cargo.toml").is_file() {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::{crates, links, records};

    #[test]
    fn crates_are_found_in_text_links_and_trees() {
        let text = "\
See `crates/model` and [the hop](crates/hop/src/lib.rs).
```
crates/
  app/          the first hop
    src/ui/     pages
  storage/      native/backends
docs/
  adr/
```
  not/          a crate
";
        let found: Vec<_> = crates(text).into_iter().collect();
        assert_eq!(found, ["app", "hop", "model", "storage"]);
    }

    #[test]
    fn records_are_found_by_file_name() {
        let text = "see docs/adr/0001-one-journal.md, [two](docs/adr/0002-b.md) and docs/adr/.";
        let found: Vec<_> = records(text).into_iter().collect();
        assert_eq!(found, ["0001-one-journal.md", "0002-b.md"]);
    }

    #[test]
    fn only_links_into_the_repository_are_followed() {
        let text = "[a](docs/a.md#part) [b](https://example.org/b) [c](#here) [d](b.md) f](x y)";
        let found: Vec<_> = links(text).into_iter().collect();
        assert_eq!(found, ["b.md", "docs/a.md"]);
    }
}
