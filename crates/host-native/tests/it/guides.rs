//! What the documents tell people to type is what the binary takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use tokio::process::Command;

/// The documents with command lines of `convene`.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/operations.md",
    "docs/archive-format.md",
    "docs/chat.md",
    "examples/README.md",
];

/// Flags of each command that is named, by its words.
fn commands(text: &str, found: &mut BTreeMap<Vec<String>, BTreeSet<String>>) {
    // A command line ends with its line, a remark, the next command, or the code that it is in.
    let text = text.replace("\\\n", " ");
    let lines = text.split(['\n', '`', '#', ';', '>']).flat_map(|line| line.split(" && "));
    for line in lines {
        let Some((before, command)) = line.split_once("convene ") else { continue };
        if !(before.is_empty() || before.ends_with([' ', '/'])) {
            continue;
        }
        let mut words = command.split_whitespace();
        let is_word = |word: &&str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        };
        let Some(first) = words.next().filter(|word| is_word(word) && !word.starts_with('-'))
        else {
            continue;
        };
        let second = words.next().filter(|word| is_word(word) && !word.starts_with('-'));
        let flags = command
            .split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
            .filter(|flag| flag.len() > 2 && flag.starts_with("--"));
        let words = [Some(first), second].into_iter().flatten().map(str::to_owned).collect();
        found.entry(words).or_default().extend(flags.map(str::to_owned));
    }
}

#[tokio::test]
async fn every_command_in_the_documents_is_one_with_its_flags() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = BTreeMap::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(root.join(document)).unwrap();
        // Only code is typed: what stands in fences and between backticks.
        for (nth, part) in text.split("```").enumerate() {
            if nth % 2 == 1 {
                commands(part, &mut found);
            } else {
                part.split('`').skip(1).step_by(2).for_each(|code| commands(code, &mut found));
            }
        }
    }
    assert!(found.len() > 30, "{found:?}");
    let mut wrong = Vec::new();
    for (words, flags) in found {
        let mut help = Command::new(env!("CARGO_BIN_EXE_convene"));
        let help = help.args(&words).arg("--help").output().await.unwrap();
        let said = String::from_utf8(help.stdout).unwrap();
        if !help.status.success() {
            wrong.push(format!("there is no `convene {}`", words.join(" ")));
        }
        for flag in flags.iter().filter(|flag| help.status.success() && !said.contains(*flag)) {
            wrong.push(format!("`convene {}` has no {flag}", words.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
